/* Who asks. Made once, in api (or by the command line: tenant "local"), and passed down. */
#ifndef HOLDFAST_PRINCIPAL_H
#define HOLDFAST_PRINCIPAL_H

#include <stddef.h>

struct hd_principal {
    const char *tenant;        /* never NULL; "local" for the command line */
    const char *key_id;        /* "" without a key */
    const char *const *groups; /* n_group names; checked against documents' access lists */
    size_t n_group;
    const char *const *scopes;
    size_t n_scope;
    int weight; /* share of the machine beside other principals; 0 counts as 1 */
};

#define HD_PRINCIPAL_LOCAL ((struct hd_principal){.tenant = "local", .key_id = ""})

#endif
