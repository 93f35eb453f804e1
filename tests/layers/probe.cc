// Compiled as if it were a source of some layer, with a header of another one in INCLUDED: against the arrows
// of the house the compiler must not find it.
#include INCLUDED
