/* The model that an image holds. */
#pragma once
#include <stdint.h>

extern const char model_id[];
extern const int model_input_bytes;
extern const int model_outputs;

/* Copy the input in; model_infer() computes on it as often as it is called. */
void model_load(const uint8_t *bytes);
void model_infer(void);

/* Return an output as a real number times 1000, rounded. */
int32_t model_result_milli(int index);
