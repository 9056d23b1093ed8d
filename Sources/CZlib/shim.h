/* zlib, the system's: data sets come gzipped. */
#include <zlib.h>
