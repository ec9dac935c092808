package dev.millrace.topology.chaos;

/**
 * What is done to the parts; the numbers are the rows of the fault matrix in docs/operations.md.
 */
public enum Fault {
  /** 1: SIGKILL to a worker with prompts in flight; it is started again after a while. */
  KILL(true),
  /** 2: SIGTERM to a worker, which drains or saves; it is started again when it has ended. */
  TERMINATE(true),
  /** 3: SIGSTOP to a worker for longer than its session, then SIGCONT: a zombie. */
  FREEZE(true),
  /** 4: SIGKILL to the broker, which is started again after a while. */
  BROKER(true),
  /** 5: more workers join and leave every one to three seconds. */
  STORM(true),
  /** 6: the registry's port is closed. */
  REGISTRY_REFUSED(false),
  /** 6: the registry answers 500. */
  REGISTRY_500(false),
  /** 6: the registry takes seconds to answer. */
  REGISTRY_SLOW(false),
  /** 9: everything between a worker and the broker takes long. */
  SLOW(true),
  /** 9, 18: nothing can be written to the completions, everything else can; then a kill. */
  OUTPUT(true),
  /** 11: a burst of prompts that each come several times at once. */
  DUPLICATES(false),
  /** 13: SIGKILL to a worker whose state folder is deleted before it starts again. */
  WIPE(true),
  /** 15: a worker is cut off from the broker. */
  CUT(true),
  /** 16: a burst of prompts that are each cancelled about when they are done. */
  CANCELS(false);

  /** Whether a worker may lose what it has not committed. */
  final boolean disrupts;

  Fault(boolean disrupts) {
    this.disrupts = disrupts;
  }
}
