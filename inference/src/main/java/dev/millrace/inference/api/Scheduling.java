package dev.millrace.inference.api;

/**
 * How a request takes its turn among others.
 *
 * @param priority lower runs first
 * @param tenant whose request it is: those of one priority share the engine evenly among tenants;
 *     empty is a tenant like any other
 * @param alone how many tokens it generates with nobody else at work, since it may have brought an
 *     earlier process down; 0: none
 * @param allowed how many tokens it may come to, resumed ones included, before it waits for {@link
 *     Generator.Generation#allow}
 */
public record Scheduling(int priority, String tenant, int alone, int allowed) {
  /** Nothing special. */
  public static final Scheduling ANY = of(0);

  public Scheduling {
    if (alone < 0) {
      throw new IllegalArgumentException("alone is " + alone + ", it must be 0 or more");
    }
    if (allowed < 0) {
      throw new IllegalArgumentException("allowed is " + allowed + ", it must be 0 or more");
    }
  }

  /** Of the unnamed tenant, with this priority. */
  public static Scheduling of(int priority) {
    return of(priority, "");
  }

  /** Of a tenant, with this priority. */
  public static Scheduling of(int priority, String tenant) {
    return new Scheduling(priority, tenant, 0, Integer.MAX_VALUE);
  }

  /** The same, its first tokens alone. */
  public Scheduling alone(int tokens) {
    return new Scheduling(priority, tenant, tokens, allowed);
  }

  /** The same, which waits when it has so many tokens. */
  public Scheduling allowed(int tokens) {
    return new Scheduling(priority, tenant, alone, tokens);
  }
}
