t=open('/work/wt/mega/kernels/cuda/whole_step.cu').read()
def sub(a,b):
    global t
    assert a in t,a
    t=t.replace(a,b)
sub('constexpr int PART = 16;','''__device__ long long prof_sum[256][32];
#define PROF(i, v) if (threadIdx.x == 0) prof_sum[blockIdx.x][i] += (v);
constexpr int PART = 16;''')
sub('    build(from, end);\n','    long long t0 = clock64();\n    build(from, end);\n    long long t1 = clock64(), waited = 0, t2;\n    PROF(p * 4, t1 - t0)\n')
sub('await(b.full + turn.slot, turn.parity);\n','t2 = clock64();\n        await(b.full + turn.slot, turn.parity);\n        waited += clock64() - t2;\n')
sub('        await(b.stored + sums_at, sums_parity ^ 1);\n        float *sums','        t2 = clock64(); await(b.stored + sums_at, sums_parity ^ 1); PROF(p*4+3, clock64()-t2)\n        float *sums')
sub('''    if (end < bytes) {
      crew_barrier(); // x is read no more
    }
''','''    if (end < bytes) {
      crew_barrier(); // x is read no more
    }
    PROF(p * 4 + 1, clock64() - t1)
    PROF(p * 4 + 2, waited)
''')
sub('await_grid(const Step &s, unsigned &barriers) {\n','await_grid(const Step &s, unsigned &barriers) {\n  long long t0 = clock64();\n')
sub('''#endif
  workers_barrier();
}
''','''#endif
  workers_barrier();
  PROF(20 + (barriers - 1) % 5, clock64() - t0)
}
''')
sub('    attend_all<K, D>(s, b, layer, ahead,','    long long ta = clock64();\n    attend_all<K, D>(s, b, layer, ahead,')
sub('''attended_largest : nullptr);
    crew_barrier();''','''attended_largest : nullptr);
    PROF(25, clock64() - ta)
    crew_barrier();''')
sub('  multiply_all<bf16, D>(\n','  multiply_all<bf16, D>(\n') if '  multiply_all<bf16, D>(\n' in t else None
t=t.replace('const __grid_constant__ Step step) {','const __grid_constant__ Step step) {  long long tw = clock64(); ').replace('reinterpret_cast<char *>(memory), step);  ','reinterpret_cast<char *>(memory), step); if (threadIdx.x == 0) prof_sum[blockIdx.x][27] += clock64() - tw; ')
open('/tmp/mega/whole_step_prof.cu','w').write(t)
