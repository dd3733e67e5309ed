// Adam over one flat array, and what a step has to know before it.

// Places in `told`, which the host writes.
#define LEARNING_RATE 0
#define BETA1 1
#define BETA2 2
#define EPSILON 3
#define PENALTY 4
// 0: the penalty multiplies the norm, 1: its square.
#define SQUARED 5

// Places in `met`, what the steps since the last look have met.
#define STEPS 0
#define RECONSTRUCTION 1
#define EMBEDDING 2
#define BATCHES 3
#define FAILED 4
#define FAILED_RECONSTRUCTION 5
#define FAILED_EMBEDDING 6

// Places in `rule`, what the step does.
#define GO 0
#define RATE 1
#define ROOT_SCALE 2
#define L2 3

// One block. Adds the batch's losses, of which error_sums and target_sums are parts, to `met`, times its rows, and works out
// the step's rule. A loss that is not finite is told with the number of its batch, and from then on no step moves anything.
extern "C" __global__ void begin_step(const double* told, double* met, float* rule, const double* error_sums,
                                      const double* target_sums, const double* square_sums, u32 error_parts,
                                      u32 target_parts, u32 square_parts, u32 rows, double error_scale,
                                      double target_scale) {
    double error = 0.0, target = 0.0, squares = 0.0;
    for (u32 i = threadIdx.x; i < error_parts; i += BLOCK) error += error_sums[i];
    for (u32 i = threadIdx.x; i < target_parts; i += BLOCK) target += target_sums[i];
    for (u32 i = threadIdx.x; i < square_parts; i += BLOCK) squares += square_sums[i];
    error = block_sum(error) * error_scale;
    target = block_sum(target) * target_scale;
    squares = block_sum(squares);
    if (threadIdx.x != 0) return;
    rule[GO] = 0.0f;
    if (met[FAILED] != 0.0) return;
    met[BATCHES] += 1.0;
    if (!isfinite(error) || !isfinite(target)) {
        met[FAILED] = met[BATCHES];
        met[FAILED_RECONSTRUCTION] = error;
        met[FAILED_EMBEDDING] = target;
        return;
    }
    met[RECONSTRUCTION] += error * rows;
    met[EMBEDDING] += target * rows;
    met[STEPS] += 1.0;
    double l2 = 2.0 * told[PENALTY];
    if (told[SQUARED] == 0.0) l2 = squares > 0.0 ? told[PENALTY] / sqrt(squares) : 0.0;
    rule[GO] = 1.0f;
    rule[RATE] = (float)(told[LEARNING_RATE] / (1.0 - pow(told[BETA1], met[STEPS])));
    rule[ROOT_SCALE] = (float)(1.0 / sqrt(1.0 - pow(told[BETA2], met[STEPS])));
    rule[L2] = (float)l2;
}

// A step of Adam: the operations of kernel::adam, in its order.
__device__ static inline void move(float* parameter, float g, float* first, float* second, float beta1, float beta2,
                                   float epsilon, float rate, float root_scale, float l2, float decay) {
    g = fmaf(l2, *parameter, g);
    float m = fmaf(beta1, *first, (1.0f - beta1) * g);
    float v = fmaf(beta2, *second, (1.0f - beta2) * g * g);
    *first = m;
    *second = v;
    *parameter -= fmaf(decay, *parameter, rate * m / fmaf(root_scale, sqrtf(v), epsilon));
}

// The step that `rule` says, over all parameters.
extern "C" __global__ void adam(float* parameters, const float* gradient, float* first, float* second, const float* rule,
                                const double* told, u64 count) {
    if (rule[GO] == 0.0f) return;
    float beta1 = (float)told[BETA1], beta2 = (float)told[BETA2], epsilon = (float)told[EPSILON];
    for (u64 at = number(); at < count; at += threads())
        move(parameters + at, gradient[at], first + at, second + at, beta1, beta2, epsilon, rule[RATE], rule[ROOT_SCALE],
             rule[L2], 0.0f);
}

// The same where the host knows the step.
extern "C" __global__ void adam_told(float* parameters, const float* gradient, float* first, float* second, u64 count,
                                     float beta1, float beta2, float epsilon, float rate, float root_scale, float l2,
                                     float decay) {
    for (u64 at = number(); at < count; at += threads())
        move(parameters + at, gradient[at], first + at, second + at, beta1, beta2, epsilon, rate, root_scale, l2, decay);
}
