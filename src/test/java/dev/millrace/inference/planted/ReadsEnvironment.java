package dev.millrace.inference.planted;

/** Breaks a rule, so that a test sees that it notices. */
public final class ReadsEnvironment {
  String read() {
    return System.getenv("HOME");
  }
}
