package dev.millrace.topology;

import java.util.stream.Collectors;

/** The reference of the settings on a page, between two marks: written from {@link Settings}. */
public final class SettingsPage {
  static final String BEGIN =
      "<!-- settings: written by ./millrace settings --write docs/operations.md -->";
  static final String END = "<!-- end of settings -->";

  private SettingsPage() {}

  /** The table, a line for each setting. */
  public static String table() {
    return Settings.ALL.stream()
        .map(Setting::row)
        .collect(
            Collectors.joining(
                "\n", "| setting | default | unit | meaning |\n|---|---|---|---|\n", "\n"));
  }

  /**
   * A page with the table that stands in it replaced.
   *
   * @throws IllegalStateException if the page has no place for it
   */
  public static String update(String page) {
    int begin = page.indexOf(BEGIN);
    int end = page.indexOf(END);
    if (begin < 0 || end < begin) {
      throw new IllegalStateException(
          "the page has no place for the settings: two lines %s and %s".formatted(BEGIN, END));
    }
    return page.substring(0, begin) + BEGIN + "\n" + table() + page.substring(end);
  }
}
