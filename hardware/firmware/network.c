#include "network.h"

#include <stddef.h>

/* Return acc * multiplier * 2^(shift - 31), rounded once, halves upwards. XNNPACK, which LiteRT runs int8 models
   with, also rounds once; TFLite's older reference kernels round twice and differ by one quantum now and then. */
static int32_t rescale(int32_t acc, int32_t multiplier, int shift) {
  int by = 31 - shift;
  return (int32_t)(((int64_t)acc * multiplier + ((int64_t)1 << (by - 1))) >> by);
}

static int8_t bounded(const layer_t *layer, int32_t value) {
  return (int8_t)(value < layer->low ? layer->low : value > layer->high ? layer->high : value);
}

static int8_t requantised(const layer_t *layer, int channel, int32_t acc) {
  return bounded(layer, layer->result_zero + rescale(acc, layer->multiplier[channel], layer->shift[channel]));
}

/* A window's first and last row (or column) inside the source. */
typedef struct {
  int origin, from, to;
} span_t;

static span_t span(const layer_t *layer, int axis, int position) {
  int origin = position * layer->stride[axis] - layer->pad[axis];
  int end = layer->source[axis] - origin;
  span_t found = {origin, origin < 0 ? -origin : 0, end < layer->kernel[axis] ? end : layer->kernel[axis]};
  return found;
}

static int32_t dot(const int8_t *values, const int8_t *weights, int count, int32_t zero) {
  int32_t sum = 0;
  for (int i = 0; i < count; i++) sum += (values[i] - zero) * weights[i];
  return sum;
}

static void conv(const layer_t *layer, const int8_t *source, int8_t *result) {
  int channels = layer->source[2], filters = layer->result[2];
  int row_size = layer->source[1] * channels, filter_row = layer->kernel[1] * channels;
  for (int y = 0; y < layer->result[0]; y++) {
    span_t rows = span(layer, 0, y);
    for (int x = 0; x < layer->result[1]; x++) {
      span_t columns = span(layer, 1, x);
      int width = (columns.to - columns.from) * channels; /* a row of the window is one piece of memory */
      for (int filter = 0; filter < filters; filter++) {
        const int8_t *weights = layer->weights + filter * layer->kernel[0] * filter_row + columns.from * channels;
        const int8_t *values = source + (columns.origin + columns.from) * channels;
        int32_t acc = layer->bias[filter];
        for (int row = rows.from; row < rows.to; row++)
          acc += dot(values + (rows.origin + row) * row_size, weights + row * filter_row, width, layer->source_zero);
        *result++ = requantised(layer, filter, acc);
      }
    }
  }
}

static void dense(const layer_t *layer, const int8_t *source, int8_t *result) {
  int count = layer->source[2];
  for (int unit = 0; unit < layer->result[2]; unit++) {
    int32_t acc = layer->bias[unit] + dot(source, layer->weights + unit * count, count, layer->source_zero);
    result[unit] = requantised(layer, unit, acc);
  }
}

static void max_pool(const layer_t *layer, const int8_t *source, int8_t *result) {
  int channels = layer->source[2];
  for (int y = 0; y < layer->result[0]; y++) {
    span_t rows = span(layer, 0, y);
    for (int x = 0; x < layer->result[1]; x++) {
      span_t columns = span(layer, 1, x);
      for (int channel = 0; channel < channels; channel++) {
        int32_t largest = -128;
        for (int row = rows.from; row < rows.to; row++)
          for (int column = columns.from; column < columns.to; column++) {
            int at = (rows.origin + row) * layer->source[1] + columns.origin + column;
            if (source[at * channels + channel] > largest) largest = source[at * channels + channel];
          }
        *result++ = bounded(layer, largest);
      }
    }
  }
}

const int8_t *network_run(const layer_t *layers, int count, const int8_t *input, int8_t *scratch[2]) {
  const int8_t *source = input;
  for (int i = 0; i < count; i++) {
    int8_t *result = scratch[i & 1];
    switch (layers[i].kind) {
      case LAYER_CONV: conv(&layers[i], source, result); break;
      case LAYER_DENSE: dense(&layers[i], source, result); break;
      case LAYER_MAX_POOL: max_pool(&layers[i], source, result); break;
    }
    source = result;
  }
  return source;
}
