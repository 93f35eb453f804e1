// A library of somebody else's: see CMakeLists.txt.
#include <anteroom/listener.h>

int backlog_max_of_own() { return anteroom::system_backlog_max(); }
