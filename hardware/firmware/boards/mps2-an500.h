/* Arm MPS2 with FPGA image AN500: Cortex-M7 at 25 MHz. Addresses: Arm DAI0500. */
#define BOARD_NAME "mps2-an500"
#define UART0_BASE 0x40004000u
#define UART1_BASE 0x40005000u
#define UART0_INTERRUPTS {0}
#define FPGAIO_BASE 0x40028000u
#define CLOCK_MHZ 25u
