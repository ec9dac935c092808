package dev.millrace.inference.tool;

import dev.millrace.inference.tool.ToolCallParser.Call;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/**
 * A stretch of an answer that should hold calls: objects, in a list or not. A call is handed out as
 * soon as its object is complete. The block ends with one of its closing tags outside of a JSON
 * string, or where between two objects something stands that belongs to no list.
 */
final class CallBlock {
  /** What may stand between and around the objects of a list. */
  private static final String STRUCTURE = " \t\r\n,;[]{}";

  private final Set<String> names;
  private final String opening;
  private final List<String> closeTags;
  private final int longestTag;

  /** Everything behind the opening. */
  private final StringBuilder text = new StringBuilder();

  private final List<Call> fresh = new ArrayList<>();

  /** What was between and behind the calls, without what makes a list of them. */
  private final StringBuilder rest = new StringBuilder();

  private boolean anyCall;

  /** Open braces; 0 between objects. */
  private int depth;

  private boolean inString;
  private boolean escaped;
  private int objectStart;

  /** Where in the text what was not looked at yet begins. */
  private int taken;

  /** Where a tag may have begun, or -1. */
  private int tagStart = -1;

  private String behind = "";

  /**
   * @param opening the text that opened it, for when there is no call in it
   * @param closeTags in lower case; none if the end of the calls is the end of the block
   */
  CallBlock(Set<String> names, String opening, List<String> closeTags) {
    this.names = names;
    this.opening = opening;
    this.closeTags = closeTags;
    this.longestTag = closeTags.stream().mapToInt(String::length).max().orElse(0);
  }

  /** Takes the next character; true if the block is over. */
  boolean feed(char c) {
    text.append(c);
    int at = text.length() - 1;
    if (inString) {
      inString = escaped || c != '"';
      escaped = !escaped && c == '\\';
      return false;
    }
    if (c == '<') {
      tagStart = at;
    } else if (at - tagStart >= longestTag) {
      tagStart = -1;
    } else if (c == '>' && tagStart >= 0 && isCloseTag(text.substring(tagStart))) {
      end(tagStart, text.length(), true);
      return true;
    }
    if (depth > 0) {
      inObject(c, at);
      // Without a tag to come, an object that is no call ends the block.
      return depth == 0 && closeTags.isEmpty() && !anyCall && over(text.length());
    }
    return between(c, at);
  }

  private void inObject(char c, int at) {
    if (c == '"') {
      inString = true;
    } else if (c == '{') {
      depth++;
    } else if (c == '}' && --depth == 0) {
      int read = object(text.substring(objectStart, at + 1), true);
      rest.append(text, objectStart + read, at + 1);
      taken = at + 1;
      tagStart = -1;
    }
  }

  private boolean between(char c, int at) {
    if (tagStart >= 0) {
      String begun = text.substring(tagStart).toLowerCase(Locale.ROOT);
      return closeTags.stream().noneMatch(tag -> tag.startsWith(begun)) && over(tagStart);
    }
    if (c == '{') {
      rest.append(text, taken, at);
      objectStart = at;
      taken = at;
      depth = 1;
      return false;
    }
    // A list of objects has nothing else between them, and an answer in another form begins here.
    return STRUCTURE.indexOf(c) < 0 && over(at);
  }

  private boolean over(int end) {
    end(end, end, true);
    return true;
  }

  /** The answer is over; whatever is open is all that comes. */
  void finish() {
    // A closing tag that was cut off is a closing tag.
    boolean cutTag = depth == 0 && anyCall && tagStart >= 0;
    end(cutTag ? tagStart : text.length(), text.length(), false);
  }

  /** Calls that are complete since the last time. */
  List<Call> takeCalls() {
    List<Call> calls = List.copyOf(fresh);
    fresh.clear();
    return calls;
  }

  /** The block's text that is no call; all of it, with its opening, if there was no call. */
  String notCalls() {
    return rest.toString();
  }

  /** The text behind the block's end. */
  String behind() {
    return behind;
  }

  /**
   * @param end of the block's text
   * @param next where the text behind the block begins
   * @param complete the block was closed, so that what is open in it will not go on
   */
  private void end(int end, int next, boolean complete) {
    behind = text.substring(next);
    if (depth > 0) {
      int read = object(text.substring(objectStart, end), complete);
      taken = objectStart + read;
      // Behind its last call an unclosed block goes over into ordinary text; an object in which
      // there is no call is such text from its brace on.
      int list = taken;
      while (read > 0 && list < end && STRUCTURE.indexOf(text.charAt(list)) >= 0) {
        list++;
      }
      if (anyCall && list < end) {
        behind = text.substring(list, end) + behind;
        taken = end;
      }
    }
    rest.append(text, taken, end);
    if (!anyCall) {
      rest.setLength(0);
      rest.append(opening).append(text, 0, next);
    } else if (rest.chars().allMatch(c -> STRUCTURE.indexOf(c) >= 0)) {
      rest.setLength(0);
    }
  }

  /**
   * Reads the calls that the text of an object begins with.
   *
   * @return how much of it they took; 0 if there are none
   */
  private int object(String object, boolean complete) {
    CallReader reader = new CallReader(object, names, complete);
    List<Call> calls = reader.calls();
    anyCall |= !calls.isEmpty();
    fresh.addAll(calls);
    return reader.read();
  }

  private boolean isCloseTag(String tag) {
    return closeTags.contains(tag.toLowerCase(Locale.ROOT));
  }
}
