// What the kernels' text needs to be C++ of the processor: the threads of a block are run one after the other. Where they
// wait for each other, each has a stack of its own and runs up to the next place at which they do.

#include <math.h>
#include <string.h>
#include <stdlib.h>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__
#define __shared__ static

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

static float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static const unsigned MOST = 1024;
static const size_t STACK = 1 << 15;
static ucontext_t scheduler, fibers[MOST];
static bool ended[MOST];
static unsigned current;
static void (*body)(void**);
static void** given;

static void __syncthreads() { swapcontext(&fibers[current], &scheduler); }

static void fiber() {
    body(given);
    ended[current] = true;
    swapcontext(&fibers[current], &scheduler);
}

template <class... A, size_t... I>
static void with(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*(A*)arguments[I]...);
}

template <class... A>
static void with(void (*kernel)(A...), void** arguments) {
    with(kernel, arguments, std::index_sequence_for<A...>{});
}

// Runs a kernel whose threads wait for each other if `waits`.
static void run(unsigned grid_x, unsigned grid_y, unsigned block, bool waits) {
    static char* stacks = (char*)malloc(MOST * STACK);
    gridDim = {grid_x, grid_y, 1};
    blockDim = {block, 1, 1};
    threadIdx = {0, 0, 0};
    for (unsigned y = 0; y < grid_y; y++) {
        for (unsigned x = 0; x < grid_x; x++) {
            blockIdx = {x, y, 0};
            if (!waits) {
                for (threadIdx.x = 0; threadIdx.x < block; threadIdx.x++) body(given);
                continue;
            }
            for (unsigned i = 0; i < block; i++) {
                ended[i] = false;
                getcontext(&fibers[i]);
                fibers[i].uc_stack.ss_sp = stacks + i * STACK;
                fibers[i].uc_stack.ss_size = STACK;
                makecontext(&fibers[i], fiber, 0);
            }
            for (bool left = true; left;) {
                left = false;
                for (current = 0; current < block; current++) {
                    if (ended[current]) continue;
                    threadIdx.x = current;
                    swapcontext(&scheduler, &fibers[current]);
                    left = left || !ended[current];
                }
            }
        }
    }
}
