/* A grid as an FMU (FMI 2.0, co-simulation): the sun covers what it can, dirty power the rest, as in own_grid.py.
   fmu_grid.py compiles it and packs it together with its description. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "fmi2Functions.h"

enum { P_LOAD, SUN_MAX, DIRTY, NCI, LOSS, COUNT };   /* value references: MW, MW, g/kWh, g/kWh, 1 */

typedef struct {
    fmi2Real value[COUNT];
    const fmi2CallbackFunctions *callbacks;
} Grid;

static const double DAY_S = 86400.0, PI = 3.14159265358979323846;

const char *fmi2GetTypesPlatform(void) { return fmi2TypesPlatform; }
const char *fmi2GetVersion(void) { return fmi2Version; }
fmi2Status fmi2SetDebugLogging(fmi2Component c, fmi2Boolean on, size_t n, const fmi2String names[]) { return fmi2OK; }

fmi2Component fmi2Instantiate(fmi2String name, fmi2Type type, fmi2String guid, fmi2String resources,
                              const fmi2CallbackFunctions *callbacks, fmi2Boolean visible, fmi2Boolean logging) {
    Grid *grid = type == fmi2CoSimulation ? calloc(1, sizeof(Grid)) : NULL;
    if (grid) {
        grid->callbacks = callbacks;
        grid->value[SUN_MAX] = 3.0;
        grid->value[DIRTY] = 800.0;
    }
    return grid;
}
void fmi2FreeInstance(fmi2Component c) { free(c); }
fmi2Status fmi2SetupExperiment(fmi2Component c, fmi2Boolean a, fmi2Real tolerance, fmi2Real start, fmi2Boolean b,
                               fmi2Real stop) { return fmi2OK; }
fmi2Status fmi2EnterInitializationMode(fmi2Component c) { return fmi2OK; }
fmi2Status fmi2ExitInitializationMode(fmi2Component c) { return fmi2OK; }
fmi2Status fmi2Terminate(fmi2Component c) { return fmi2OK; }
fmi2Status fmi2Reset(fmi2Component c) { return fmi2OK; }

fmi2Status fmi2GetReal(fmi2Component c, const fmi2ValueReference vr[], size_t n, fmi2Real out[]) {
    for (size_t k = 0; k < n; k++) {
        if (vr[k] >= COUNT) return fmi2Error;
        out[k] = ((Grid *)c)->value[vr[k]];
    }
    return fmi2OK;
}
fmi2Status fmi2SetReal(fmi2Component c, const fmi2ValueReference vr[], size_t n, const fmi2Real in[]) {
    for (size_t k = 0; k < n; k++) {
        if (vr[k] >= COUNT) return fmi2Error;
        ((Grid *)c)->value[vr[k]] = in[k];
    }
    return fmi2OK;
}

fmi2Status fmi2DoStep(fmi2Component c, fmi2Real time_s, fmi2Real step_s, fmi2Boolean no_set) {
    Grid *grid = c;
    double *v = grid->value, up = sin(2.0 * PI * (time_s / DAY_S - 0.25));
    double sun = v[SUN_MAX] * (up > 0.0 ? up : 0.0);
    if (v[P_LOAD] < 0.0) {
        const fmi2CallbackFunctions *f = grid->callbacks;
        f->logger(f->componentEnvironment, "grid", fmi2Error, "logStatusError", "load below zero");
        return fmi2Error;
    }
    v[NCI] = v[P_LOAD] > sun ? (1.0 - sun / v[P_LOAD]) * v[DIRTY] : 0.0;
    return fmi2OK;
}
fmi2Status fmi2CancelStep(fmi2Component c) { return fmi2Error; }

/* of what it has none, and its description says so */
#define NONE(name, ...) fmi2Status name(fmi2Component c, __VA_ARGS__) { return fmi2Error; }
NONE(fmi2GetInteger, const fmi2ValueReference v[], size_t n, fmi2Integer x[])
NONE(fmi2GetBoolean, const fmi2ValueReference v[], size_t n, fmi2Boolean x[])
NONE(fmi2GetString, const fmi2ValueReference v[], size_t n, fmi2String x[])
NONE(fmi2SetInteger, const fmi2ValueReference v[], size_t n, const fmi2Integer x[])
NONE(fmi2SetBoolean, const fmi2ValueReference v[], size_t n, const fmi2Boolean x[])
NONE(fmi2SetString, const fmi2ValueReference v[], size_t n, const fmi2String x[])
NONE(fmi2GetFMUstate, fmi2FMUstate *s)
NONE(fmi2SetFMUstate, fmi2FMUstate s)
NONE(fmi2FreeFMUstate, fmi2FMUstate *s)
NONE(fmi2SerializedFMUstateSize, fmi2FMUstate s, size_t *n)
NONE(fmi2SerializeFMUstate, fmi2FMUstate s, fmi2Byte b[], size_t n)
NONE(fmi2DeSerializeFMUstate, const fmi2Byte b[], size_t n, fmi2FMUstate *s)
NONE(fmi2GetDirectionalDerivative, const fmi2ValueReference u[], size_t nu, const fmi2ValueReference k[], size_t nk,
     const fmi2Real dk[], fmi2Real du[])
NONE(fmi2SetRealInputDerivatives, const fmi2ValueReference v[], size_t n, const fmi2Integer o[], const fmi2Real x[])
NONE(fmi2GetRealOutputDerivatives, const fmi2ValueReference v[], size_t n, const fmi2Integer o[], fmi2Real x[])
NONE(fmi2GetStatus, const fmi2StatusKind k, fmi2Status *s)
NONE(fmi2GetRealStatus, const fmi2StatusKind k, fmi2Real *s)
NONE(fmi2GetIntegerStatus, const fmi2StatusKind k, fmi2Integer *s)
NONE(fmi2GetBooleanStatus, const fmi2StatusKind k, fmi2Boolean *s)
NONE(fmi2GetStringStatus, const fmi2StatusKind k, fmi2String *s)
