// What all kernels share. This text stands before each of them. It is compiled by NVRTC, and by the C++ compiler of the
// machine for tests on the processor, so it uses nothing but the language and what the emulation in host.cpp has.

typedef unsigned int u32;
typedef unsigned long long u64;

// Threads in a block of the kernels that add up in shared memory.
#define BLOCK 256

// A thread's number in the whole grid, and how many there are.
__device__ static inline u64 number() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ static inline u64 threads() { return (u64)gridDim.x * blockDim.x; }

// The sum over a block of BLOCK threads, in a fixed order; the first thread has it.
__device__ static inline double block_sum(double value) {
    __shared__ double values[BLOCK];
    values[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
        __syncthreads();
    }
    double sum = values[0];
    __syncthreads();
    return sum;
}
