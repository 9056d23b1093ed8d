/* PCRE2 (10.34 or later) for 8-bit code units, from the system's libpcre2-8. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
