"""Runs the functions test_… of a system test one after another and prints what CTest looks for."""
import sys
import time


def run(namespace, skipped=()):
    """The exit status. Names after the binary choose; `skipped`: what tests noted that could not be tried here."""
    wanted, passed, failed = sys.argv[2:], 0, 0
    for name, test in list(namespace.items()):
        if not name.startswith("test_") or not callable(test) or (wanted and name not in wanted):
            continue
        began = time.time()
        try:
            test()
            passed += 1
            print(f"ok    {name} ({time.time() - began:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001: a test's failure, whatever it is
            failed += 1
            line = error.__traceback__.tb_next.tb_lineno if error.__traceback__.tb_next else 0
            print(f"FAIL  {name}, line {line}: {type(error).__name__}: {error}", flush=True)
    for line in skipped:
        print("skip  " + line)
    print(f"{passed - len(skipped)} passed, {failed} failed")
    return 1 if failed or not passed else 0
