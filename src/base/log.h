/* One log call: level, subsystem, message with key=value. Goes to stderr unless a sink is set.
 * Thread-safe. */
#ifndef HD_BASE_LOG_H
#define HD_BASE_LOG_H

enum hd_log_level { HD_LOG_ERROR, HD_LOG_WARN, HD_LOG_INFO, HD_LOG_DEBUG };

void hd_log_set_level(enum hd_log_level level);
void hd_log_set_sink(void (*sink)(enum hd_log_level, const char *line, void *ud), void *ud);
void hd_log(enum hd_log_level level, const char *subsystem, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
