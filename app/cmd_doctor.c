/* holdfast doctor: what this machine offers. */
#include <stdio.h>
#include <unistd.h>

#include "app.h"

int hd_cmd_doctor(struct hd_app *app)
{
    printf("cores   %ld\nhome    %s\n", sysconf(_SC_NPROCESSORS_ONLN), app->home);
    return HD_EXIT_OK;
}
