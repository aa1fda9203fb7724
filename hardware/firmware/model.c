#include "model.h"

#include MODEL_HEADER

const char model_id[] = MODEL_ID;
const int model_input_bytes = MODEL_INPUT_BYTES;
const int model_outputs = MODEL_OUTPUTS;

static int8_t input[MODEL_INPUT_BYTES];
static int8_t first[MODEL_LARGEST], second[MODEL_LARGEST];
static const int8_t *outputs = first;

void model_load(const uint8_t *bytes) {
  for (int i = 0; i < MODEL_INPUT_BYTES; i++) input[i] = (int8_t)bytes[i];
}

void model_infer(void) {
  int8_t *scratch[2] = {first, second};
  outputs = network_run(layers, sizeof layers / sizeof layers[0], input, scratch);
}

int32_t model_result_milli(int index) {
  float milli = (float)(outputs[index] - MODEL_OUTPUT_ZERO) * MODEL_OUTPUT_SCALE * 1000.0f;
  return (int32_t)(milli < 0.0f ? milli - 0.5f : milli + 0.5f);
}
