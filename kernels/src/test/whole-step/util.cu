__device__ unsigned long long mix(unsigned long long z){ z=(z^(z>>30))*0xBF58476D1CE4E5B9ull; z=(z^(z>>27))*0x94D049BB133111EBull; return z^(z>>31);}
#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern "C" __global__ void fill8(unsigned char *p, size_t n, float spread, unsigned long long seed){ for(size_t i=blockIdx.x*(size_t)blockDim.x+threadIdx.x;i<n;i+=(size_t)gridDim.x*blockDim.x){ float u=(float)((long long)mix(seed*0x9E3779B97F4A7C15ull+i)>>40)*0x1p-23f; p[i]=__nv_cvt_float_to_fp8(u*448,__NV_SATFINITE,__NV_E4M3);} }
extern "C" __global__ void fill16(__nv_bfloat16 *p, size_t n, float spread, unsigned long long seed){ for(size_t i=blockIdx.x*(size_t)blockDim.x+threadIdx.x;i<n;i+=(size_t)gridDim.x*blockDim.x){ float u=(float)((long long)mix(seed*0x9E3779B97F4A7C15ull+i)>>40)*0x1p-23f; p[i]=__float2bfloat16_rn(u*spread);} }
extern "C" __global__ void hash(const unsigned *p, size_t n, unsigned long long *d){ unsigned long long a=0; for(size_t i=blockIdx.x*(size_t)blockDim.x+threadIdx.x;i<n;i+=(size_t)gridDim.x*blockDim.x) a+=mix(((unsigned long long)p[i]<<32)+i); atomicAdd(d,a);}
