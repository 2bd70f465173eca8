/* How the system treats a thread. */
#ifndef HD_BASE_THREAD_H
#define HD_BASE_THREAD_H

/* For threads that wake often and work briefly: asks that the calling thread, once woken, need not
 * wait for the end of the time slice of one that computes. Costs the others nothing: its share
 * stays the same. A wish: systems that do not know it (Linux before 6.12) do nothing. */
void hd_thread_be_prompt(void);

#endif
