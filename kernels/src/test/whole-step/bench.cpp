#include <cuda.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <vector>
#include <algorithm>
#include <string>
#define CK(x) do { CUresult r_ = (x); if (r_) { const char *m; cuGetErrorString(r_, &m); printf("%s:%d %s: %s\n", __FILE__, __LINE__, #x, m); fflush(stdout); exit(1);} } while (0)
typedef CUdeviceptr P;
struct Layer { P q,k,v,o,gate,up,down,an,fn,keys,values; float qs,ks,vs,os,gs,us,ds; float qi,oi,gi,di; float key_scale,value_scale,none; };
struct Step { P layers,last_norm,output,cos,sin,slots,begin,context_length,block_table,state,queries,attended,gated,logits,partial,largest,counts; int layer_count,rows,hidden,inner,heads,kv_heads,vocab,max_blocks,x_stride,slots_of_queue; float epsilon; };
static P dalloc(size_t n) { P p; CK(cuMemAlloc(&p, n)); return p; }
template <class T> static P up(const std::vector<T> &v) { P p = dalloc(v.size()*sizeof(T)); CK(cuMemcpyHtoD(p, v.data(), v.size()*sizeof(T))); return p; }
int main(int argc, char **argv) {
  CK(cuInit(0)); CUdevice dev; CK(cuDeviceGet(&dev,0)); CUcontext c; CK(cuDevicePrimaryCtxRetain(&c,dev)); CK(cuCtxSetCurrent(c));
  int sms; CK(cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, dev));
  CUmodule util; CK(cuModuleLoad(&util, "util.cubin")); CUfunction f8, f16, hash; CK(cuModuleGetFunction(&f8, util, "fill8")); CK(cuModuleGetFunction(&f16, util, "fill16")); CK(cuModuleGetFunction(&hash, util, "hash"));
  bool fp8 = !strcmp(argv[1], "fp8");
  int es = fp8 ? 1 : 2;
  int H=4096, F=14336, A=32, KV=8, D=128, L=32, V=128256, MB=2048;
  size_t per = (size_t)(A+2*KV)*D*H + (size_t)A*D*H + 3ull*F*H;
  P weights = dalloc(per*L*es + 4096), out = dalloc((size_t)V*H*2);
  auto fill=[&](P p, size_t n, bool narrow, float spread, unsigned long long seed){ void *a[]={&p,&n,&spread,&seed}; CK(cuLaunchKernel(narrow?f8:f16, 132*8,1,1,256,1,1,0,0,a,0)); };
  fill(weights, per*L, fp8, 1.7f/64, 1); fill(out, (size_t)V*H, false, 1.7f/64, 2);
  size_t blocks = 16400; size_t kvn = blocks*KV*16*D;
  std::vector<Layer> layers(L);
  std::vector<float> ones(H, 1.0f); P norm = up(ones);
  for (int l=0;l<L;l++) { Layer &y=layers[l]; memset(&y,0,sizeof y); P w = weights + per*l*es;
    y.q=w; y.k=y.q+(size_t)A*D*H*es; y.v=y.k+(size_t)KV*D*H*es; y.o=y.v+(size_t)KV*D*H*es; y.gate=y.o+(size_t)A*D*H*es; y.up=y.gate+(size_t)F*H*es; y.down=y.up+(size_t)F*H*es;
    y.an=y.fn=norm; y.keys=dalloc(kvn*es); y.values=dalloc(kvn*es); fill(y.keys,kvn,fp8,1.0f,3+l); fill(y.values,kvn,fp8,1.0f,100+l);
    float s = fp8 ? 1.7f/64/448 : 1; y.qs=y.ks=y.vs=y.os=y.gs=y.us=y.ds=s; y.key_scale=y.value_scale= fp8? 1.0f/448:1; }
  P dl = up(layers);
  P state0 = dalloc(8*H*2); fill(state0, 8*H, false, 1.7f, 77);
  Step s; memset(&s,0,sizeof s); s.layers=dl; s.last_norm=norm; s.output=out;
  std::vector<float> co(8*64,0.8f), si(8*64,0.6f); s.cos=up(co); s.sin=up(si);
  std::vector<int> table(8*MB); for (int i=0;i<8*MB;i++) table[i]=(int)((i*7919ull)%blocks); s.block_table=up(table); s.max_blocks=MB;
  std::vector<int> slots(8), begin(8), ctx(8); for (int i=0;i<8;i++) begin[i]=i; s.begin=up(begin); s.slots=dalloc(32); s.context_length=dalloc(32);
  s.state=dalloc(8*H*2); s.queries=dalloc(8*H*2); s.attended=dalloc(8*H*2); s.gated=dalloc(8*F*2); s.logits=dalloc(8ull*V*4); s.partial=dalloc(64<<20); s.largest=dalloc(4096); s.counts=dalloc(4096); CK(cuMemsetD8(s.counts,0,4096)); CK(cuMemsetD8(s.attended,0,8*H*2));
  s.layer_count=L; s.hidden=H; s.inner=F; s.heads=A; s.kv_heads=KV; s.vocab=V; s.epsilon=1e-5f;
  P digest = dalloc(8);
  CUevent e0,e1; CK(cuEventCreate(&e0,0)); CK(cuEventCreate(&e1,0));
  // the rest: cubin:chunk:crew ...
  for (int a=2;a<argc;a++) {
    std::string spec=argv[a]; size_t c1=spec.find(':'), c2=spec.find(':',c1+1);
    std::string file=spec.substr(0,c1); int chunk=atoi(spec.substr(c1+1,c2-c1-1).c_str()), crew=atoi(spec.substr(c2+1).c_str());
    CUmodule m; CK(cuModuleLoad(&m, file.c_str())); CUfunction f; CK(cuModuleGetFunction(&f, m, fp8?"whole_step_fp8_fp8_128":"whole_step_bf16_bf16_128"));
    P prof=0; size_t pn=0; bool profiled = cuModuleGetGlobal(&prof,&pn,m,"prof_sum")==0;
    struct { int rows, ctx; } cases[] = {{1,256},{1,2048},{1,16384},{2,256},{4,256},{8,256},{8,1024}};
    for (auto &cs : cases) {
      if (profiled && cs.ctx>256) continue;
      s.rows=cs.rows; for (int i=0;i<8;i++) { ctx[i]=cs.ctx; slots[i]= i<cs.rows ? table[i*MB+(cs.ctx-1)/16]*16+(cs.ctx-1)%16 : -1; }
      CK(cuMemcpyHtoD(s.slots,slots.data(),32)); CK(cuMemcpyHtoD(s.context_length,ctx.data(),32));
      int merge = 8*4*(D+2)*4;
      s.x_stride = cs.rows<=2 ? F*2+64 : cs.rows<=4 ? 4*H+64 : 2*H+64;
      int rest = 1136 + 144*L + 3*8*cs.rows*20*4 + 8*16*cs.rows*4 + std::max(cs.rows*s.x_stride, merge);
      int slot = 16*(chunk+64); s.slots_of_queue = std::min(16,(227*1024 - rest)/slot);
      int shared = s.slots_of_queue*slot + rest;
      CK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared));
      void *args[]={&s};
      unsigned long long d[3];
      if (profiled) CK(cuMemsetD8(prof,0,pn));
      std::vector<float> times;
      int N = profiled ? 4 : 25;
      for (int i=0;i<N;i++) { CK(cuMemcpyDtoDAsync(s.state,state0,8*H*2,0));
        CK(cuEventRecord(e0,0)); CK(cuLaunchCooperativeKernel(f,sms,1,1,384,1,1,shared,0,args)); CK(cuEventRecord(e1,0)); CK(cuEventSynchronize(e1)); float ms; CK(cuEventElapsedTime(&ms,e0,e1)); times.push_back(ms);
        if (i<3) { size_t n=(size_t)cs.rows*V; P lg=s.logits; CK(cuMemsetD8(digest,0,8)); void *ha[]={&lg,&n,&digest}; CK(cuLaunchKernel(hash,132,1,1,256,1,1,0,0,ha,0)); CK(cuMemcpyDtoH(&d[i],digest,8)); } }
      std::sort(times.begin(),times.end());
      double bytes = (double)per*L*es + (double)V*H*2; std::vector<float> lo(4); CK(cuMemcpyDtoH(lo.data(),s.logits,16));
      printf("%-28s rows %d ctx %5d: median %.3f ms min %.3f (%.0f GB/s) slots %d x %d  digests %s %016llx logits %.4f %.4f %.4f\n", file.c_str(), cs.rows, cs.ctx, times[N/2], times[0], bytes/times[N/2]/1e6, s.slots_of_queue, s.x_stride, d[0]==d[1]&&d[1]==d[2]?"same":"DIFFER", d[0], lo[0], lo[1], lo[2]); fflush(stdout);
      if (profiled) { std::vector<long long> pr(256*32); CK(cuMemcpyDtoH(pr.data(),prof,pn));
        for (int b : {0, 5, 60, 131}) { printf("  block %3d us/layer:", b); const char *n[]={"qkv","o","gu","down","out"}; double k=1.0/1755/L/N; for (int p=0;p<5;p++) printf(" %s build %.2f mul %.2f (wait %.2f, stores %.2f)", n[p], pr[b*32+p*4]*k, pr[b*32+p*4+1]*k, pr[b*32+p*4+2]*k, pr[b*32+p*4+3]*k);
          printf(" | grid:"); for (int p=0;p<5;p++) printf(" %.2f", pr[b*32+20+p]*k); printf(" att %.2f out %.2f all %.2f\n", pr[b*32+25]*k, pr[b*32+26]*k, pr[b*32+27]*k); } }
    }
    CK(cuModuleUnload(m));
  }
}
