package dev.millrace.inference.api;

/**
 * How a request takes its turn among others.
 *
 * @param priority lower runs first
 * @param tenant whose request it is: those of one priority share the engine evenly among tenants;
 *     empty is a tenant like any other
 * @param alone how many tokens it generates with nobody else at work, since it may have brought an
 *     earlier process down; 0: none
 */
public record Scheduling(int priority, String tenant, int alone) {
  /** Nothing special. */
  public static final Scheduling ANY = of(0);

  public Scheduling {
    if (alone < 0) {
      throw new IllegalArgumentException("alone is " + alone + ", it must be 0 or more");
    }
  }

  /** Of the unnamed tenant, with this priority. */
  public static Scheduling of(int priority) {
    return new Scheduling(priority, "", 0);
  }

  /** The same, its first tokens alone. */
  public Scheduling alone(int tokens) {
    return new Scheduling(priority, tenant, tokens);
  }
}
