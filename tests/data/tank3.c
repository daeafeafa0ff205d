/* A tank as an FMI 3.0 co-simulation FMU: its level is the integral of what flows in; a switch drains it. */
#include <stdlib.h>
#include "fmi3Functions.h"

typedef struct { fmi3Float64 inflow, level; fmi3Int32 count; fmi3Boolean open; } Tank;

fmi3Instance fmi3InstantiateCoSimulation(fmi3String name, fmi3String token, fmi3String path, fmi3Boolean visible,
    fmi3Boolean logging, fmi3Boolean events, fmi3Boolean early, const fmi3ValueReference need[], size_t n,
    fmi3InstanceEnvironment env, fmi3LogMessageCallback log, fmi3IntermediateUpdateCallback update) {
    return calloc(1, sizeof(Tank));
}
void fmi3FreeInstance(fmi3Instance i) { free(i); }
fmi3Status fmi3EnterInitializationMode(fmi3Instance i, fmi3Boolean a, fmi3Float64 tolerance, fmi3Float64 start,
    fmi3Boolean b, fmi3Float64 stop) { return fmi3OK; }
fmi3Status fmi3ExitInitializationMode(fmi3Instance i) { return fmi3OK; }
fmi3Status fmi3Terminate(fmi3Instance i) { return fmi3OK; }
fmi3Status fmi3SetFloat64(fmi3Instance i, const fmi3ValueReference vr[], size_t n, const fmi3Float64 v[], size_t m) {
    for (size_t k = 0; k < n; k++) { if (vr[k] == 1) ((Tank *)i)->inflow = v[k]; else ((Tank *)i)->level = v[k]; }
    return fmi3OK;
}
fmi3Status fmi3GetFloat64(fmi3Instance i, const fmi3ValueReference vr[], size_t n, fmi3Float64 v[], size_t m) {
    for (size_t k = 0; k < n; k++) v[k] = vr[k] == 1 ? ((Tank *)i)->inflow : ((Tank *)i)->level;
    return fmi3OK;
}
fmi3Status fmi3SetBoolean(fmi3Instance i, const fmi3ValueReference vr[], size_t n, const fmi3Boolean v[], size_t m) {
    ((Tank *)i)->open = v[0];
    return fmi3OK;
}
fmi3Status fmi3GetInt32(fmi3Instance i, const fmi3ValueReference vr[], size_t n, fmi3Int32 v[], size_t m) {
    v[0] = ((Tank *)i)->count;
    return fmi3OK;
}
fmi3Status fmi3DoStep(fmi3Instance i, fmi3Float64 time, fmi3Float64 step, fmi3Boolean keep, fmi3Boolean *event,
    fmi3Boolean *terminate, fmi3Boolean *early, fmi3Float64 *last) {
    Tank *t = i;
    t->level = t->open ? 0.0 : t->level + t->inflow * step;
    t->count += 1;
    *event = *early = fmi3False;
    *terminate = t->level > 5.0e7;
    *last = time + step;
    return fmi3OK;
}
