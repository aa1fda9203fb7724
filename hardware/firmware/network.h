/* int8 networks as a table of layers, with the arithmetic of TFLite's int8 specification. */
#pragma once
#include <stdint.h>

typedef enum { LAYER_CONV, LAYER_DENSE, LAYER_MAX_POOL } layer_kind_t;

typedef struct {
  layer_kind_t kind;
  int16_t source[3]; /* height, width, channels */
  int16_t result[3];
  int16_t kernel[2]; /* height, width; the same order below */
  int16_t stride[2];
  int16_t pad[2];                         /* rows above, columns at the left */
  int16_t source_zero, result_zero;       /* the stored values that mean 0 */
  int16_t low, high;                      /* bounds of the result: int8's, or a fused activation's */
  const int8_t *weights;                  /* result channel, row, column, source channel */
  const int32_t *bias;                    /* one of each result channel, as are the next two */
  const int32_t *multiplier;
  const int8_t *shift;
} layer_t;

/* Run `count` layers on `input`. `scratch` is two buffers, each as large as the largest tensor; the result lies in
   one of them and is returned. */
const int8_t *network_run(const layer_t *layers, int count, const int8_t *input, int8_t *scratch[2]);
