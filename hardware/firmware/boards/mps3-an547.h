/* Arm MPS3 with FPGA image AN547: Cortex-M55 at 32 MHz, secure aliases. Addresses: Arm DAI0547. */
#define BOARD_NAME "mps3-an547"
#define UART0_BASE 0x59303000u
#define UART1_BASE 0x59304000u
#define UART0_INTERRUPTS {33, 34} /* received, sent: only the first is ever raised, see serial.c */
#define FPGAIO_BASE 0x59302000u
#define CLOCK_MHZ 32u
