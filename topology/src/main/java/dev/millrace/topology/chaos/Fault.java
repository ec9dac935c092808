package dev.millrace.topology.chaos;

/**
 * What is done to the parts; the numbers are the rows of the fault matrix in docs/operations.md.
 */
public enum Fault {
  /** 1: SIGKILL to a worker with prompts in flight; it is started again after a while. */
  KILL(Hold.NOBODY),
  /** 2: SIGTERM to a worker, which drains or saves; it is started again when it has ended. */
  TERMINATE(Hold.NOBODY),
  /** 3: SIGSTOP to a worker for longer than its session, then SIGCONT: a zombie. */
  FREEZE(Hold.WORKER),
  /** 4: SIGKILL to the broker, which is started again after a while. */
  BROKER(Hold.ALL),
  /** 5: more workers join and leave every one to three seconds. */
  STORM(Hold.ALL),
  /** 6: the registry's port is closed. */
  REGISTRY_REFUSED(Hold.NOBODY),
  /** 6: the registry answers 500. */
  REGISTRY_500(Hold.NOBODY),
  /**
   * 6: the registry takes seconds to answer, and the thread that asks commits nothing meanwhile.
   */
  REGISTRY_SLOW(Hold.ALL),
  /** 9: everything between a worker and the broker takes long. */
  SLOW(Hold.WORKER),
  /** 9, 18: nothing can be written to the completions, everything else can; then a kill. */
  OUTPUT(Hold.ALL),
  /** 11: a burst of prompts that each come several times at once. */
  DUPLICATES(Hold.NOBODY),
  /** 13: SIGKILL to a worker whose state folder is deleted before it starts again. */
  WIPE(Hold.NOBODY),
  /** 15: a worker is cut off from the broker. */
  CUT(Hold.WORKER),
  /** 16: a burst of prompts that are each cancelled about when they are done. */
  CANCELS(Hold.NOBODY);

  private final Hold holds;

  Fault(Hold holds) {
    this.holds = holds;
  }

  /** Whose commits a fault holds up for as long as it lasts. */
  enum Hold {
    NOBODY,
    WORKER,
    ALL
  }

  Hold holds(String protocol) {
    // Members of the streams protocol go on while others come and go.
    return this == STORM && protocol.equals("streams") ? Hold.NOBODY : holds;
  }
}
