#include "serial.h"

#include BOARD_HEADER

/* The APB UART of Arm's Cortex-M System Design Kit (DDI 0479). */
typedef struct {
  volatile uint32_t data, state, control, interrupt, divider;
} uart_t;

#define UART0 ((uart_t *)UART0_BASE)
#define UART1 ((uart_t *)UART1_BASE)
#define STATE_TX_FULL 1u
#define STATE_RX_FULL 2u
#define CONTROL_TX 1u
#define CONTROL_RX 2u
#define CONTROL_RX_INTERRUPT 8u
#define INTERRUPT_RX 2u
#define BAUD 115200u
#define EDGE 'e'

#define NVIC_ENABLE ((volatile uint32_t *)0xE000E100u)

#define RING 1024u /* a power of two: what the host may send ahead before it has to wait */
static volatile char ring[RING];
static volatile uint32_t head, tail;

static void enable(uart_t *uart, uint32_t control) {
  uart->divider = CLOCK_MHZ * 1000000u / BAUD;
  uart->control = control;
  /* QEMU 7.2 does not look for waiting bytes when the receiver is enabled; a read of the data register makes it.
     Without it a board can stay deaf after a reset, until something else wakes the emulator. */
  (void)uart->data;
}

void serial_start(void) {
  static const uint8_t interrupts[] = UART0_INTERRUPTS;
  enable(UART0, CONTROL_TX | CONTROL_RX | CONTROL_RX_INTERRUPT);
  enable(UART1, CONTROL_TX);
  for (unsigned i = 0; i < sizeof interrupts; i++) NVIC_ENABLE[interrupts[i] / 32] = 1u << (interrupts[i] % 32);
}

/* Move what has arrived into the ring. A full ring leaves bytes in the UART, which then holds the host back. */
static void take(void) {
  UART0->interrupt = INTERRUPT_RX; /* first: a byte that arrives from here on asks again */
  while ((UART0->state & STATE_RX_FULL) && head - tail < RING) {
    ring[head % RING] = (char)UART0->data;
    head++;
  }
}

void serial_interrupt(void) { take(); }

char serial_get(void) {
  for (;;) {
    __asm volatile("cpsid i" ::: "memory");
    take(); /* also what a full ring left behind */
    if (head != tail) break;
    __asm volatile("wfi\n cpsie i" ::: "memory"); /* an interrupt ends wfi although it is masked: none is missed */
  }
  char c = ring[tail % RING];
  tail++;
  __asm volatile("cpsie i" ::: "memory");
  return c;
}

static void send(uart_t *uart, char c) {
  while (uart->state & STATE_TX_FULL) continue;
  uart->data = (uint8_t)c;
}

void serial_put(const char *text) {
  while (*text) send(UART0, *text++);
}

void serial_put_unsigned(uint32_t value) {
  char digits[11];
  int i = sizeof digits;
  digits[--i] = 0;
  do digits[--i] = (char)('0' + value % 10);
  while (value /= 10);
  serial_put(digits + i);
}

void serial_put_number(int32_t value) {
  if (value < 0) serial_put("-");
  serial_put_unsigned(value < 0 ? 0u - (uint32_t)value : (uint32_t)value);
}

void serial_put_hex(uint32_t value, int digits) {
  while (digits-- > 0) send(UART0, "0123456789abcdef"[(value >> (4 * digits)) & 15u]);
}

void serial_edge(void) { send(UART1, EDGE); }

void serial_stop(void) { UART0->control = CONTROL_TX; }
