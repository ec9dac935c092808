package dev.millrace.inference.token;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Keeps special tokens that a template emits apart from text that only looks like them.
 *
 * <p>In marked text one private-use character stands for each special token: U+E000 for the first,
 * U+E001 for the second and so on. {@link #mark} puts marks into trusted text (a template's own
 * literals), {@link #guard} makes untrusted text safe to stand beside them: it has no marks
 * afterwards, whatever it held before. So nothing that a user writes can become a special token,
 * also where a template cuts texts apart and joins them. Immutable.
 */
public final class SpecialMarks {
  private static final char FIRST = '\uE000';

  /** A guarded private-use character is the escape and then the character moved up by this. */
  private static final char MOVED = 0x1000;

  private static final int MOST = 2048;

  private final List<String> specials;
  private final Map<String, Character> marks = new HashMap<>();
  private final Pattern anySpecial;
  private final char escape;

  /**
   * @throws IllegalArgumentException if there are more than 2048 special tokens
   */
  public SpecialMarks(List<String> specials) {
    if (specials.size() > MOST) {
      throw new IllegalArgumentException(
          specials.size() + " special tokens, more than the " + MOST + " that can be told apart");
    }
    this.specials = List.copyOf(specials);
    for (int i = 0; i < this.specials.size(); i++) {
      marks.put(this.specials.get(i), (char) (FIRST + i));
    }
    this.escape = (char) (FIRST + this.specials.size());
    // Longest first, so that a special that begins with another one is not cut in two.
    List<String> longestFirst = new ArrayList<>(this.specials);
    longestFirst.sort(Comparator.comparingInt(String::length).reversed());
    StringBuilder any = new StringBuilder();
    for (String special : longestFirst) {
      any.append(any.isEmpty() ? "" : "|").append(Pattern.quote(special));
    }
    // (?!) matches nowhere: a vocabulary without specials marks nothing.
    this.anySpecial = Pattern.compile(any.isEmpty() ? "(?!)" : any.toString());
  }

  /** The special tokens in the order of their marks. */
  public List<String> specials() {
    return specials;
  }

  /** Trusted text with a mark in place of each special token it spells. */
  public String mark(String trusted) {
    Matcher matcher = anySpecial.matcher(guard(trusted));
    StringBuilder out = new StringBuilder();
    while (matcher.find()) {
      Character mark = marks.get(matcher.group());
      matcher.appendReplacement(out, mark == null ? "" : mark.toString());
    }
    return matcher.appendTail(out).toString();
  }

  /**
   * Untrusted text made safe for marked text: characters that would be marks are escaped, halves of
   * surrogate pairs, which no encoding of characters has, become U+FFFD.
   */
  public String guard(String untrusted) {
    int i = 0;
    while (i < untrusted.length() && !guarded(untrusted, i)) {
      i++;
    }
    if (i == untrusted.length()) {
      return untrusted;
    }
    StringBuilder out = new StringBuilder(untrusted.length() + 16).append(untrusted, 0, i);
    for (; i < untrusted.length(); i++) {
      char c = untrusted.charAt(i);
      if (!guarded(untrusted, i)) {
        out.append(c);
      } else if (Character.isSurrogate(c)) {
        out.append('\uFFFD');
      } else {
        out.append(escape).append((char) (c + MOVED));
      }
    }
    return out.toString();
  }

  /** Marked text as people read it: special tokens spelt out, guarded characters as they were. */
  public String restore(String marked) {
    StringBuilder out = new StringBuilder(marked.length());
    for (int i = 0; i < marked.length(); i++) {
      int special = special(marked.charAt(i));
      if (special >= 0) {
        out.append(specials.get(special));
      } else {
        i = restoreChar(marked, i, out);
      }
    }
    return out.toString();
  }

  /** Whether marked text spells out a special token, beside those that its marks stand for. */
  public boolean spells(String marked) {
    return anySpecial.matcher(marked).find();
  }

  /** Which special token a character of marked text stands for, or -1. */
  int special(char c) {
    return c >= FIRST && c < escape ? c - FIRST : -1;
  }

  /** The plain text of a stretch of marked text that holds no marks. */
  String plain(String marked, int from, int to) {
    if (marked.indexOf(escape, from, to) < 0) {
      return marked.substring(from, to);
    }
    StringBuilder out = new StringBuilder(to - from);
    for (int i = from; i < to; i++) {
      i = restoreChar(marked, i, out);
    }
    return out.toString();
  }

  /** Appends the character at i, unescaped, and returns the last index it took. */
  private int restoreChar(String marked, int i, StringBuilder out) {
    char c = marked.charAt(i);
    if (c != escape) {
      out.append(c);
      return i;
    }
    // A template may have cut a text right behind an escape; then there is nothing to restore.
    if (i + 1 < marked.length()) {
      char moved = (char) (marked.charAt(i + 1) - MOVED);
      if (moved >= FIRST && moved <= escape) {
        out.append(moved);
        return i + 1;
      }
    }
    return i;
  }

  private boolean guarded(String text, int i) {
    char c = text.charAt(i);
    if (c >= FIRST && c <= escape) {
      return true;
    }
    if (!Character.isSurrogate(c)) {
      return false;
    }
    return Character.isHighSurrogate(c)
        ? i + 1 == text.length() || !Character.isLowSurrogate(text.charAt(i + 1))
        : i == 0 || !Character.isHighSurrogate(text.charAt(i - 1));
  }
}
