package dev.millrace.topology.chaos;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;

/**
 * Which tokens one worker process has generated for which prompts: a mapped file, so that the
 * system keeps what was written when the process is killed. One entry for each submission to the
 * engine: the prompt's number, when it was submitted, from which token on, and how far it came.
 * Safe for several threads.
 */
final class TokenLog {
  private static final int ENTRY = 24;
  private static final int MOST = 200_000;

  private final MappedByteBuffer map;
  private int entries;

  /**
   * A submission.
   *
   * @param startedMs milliseconds since 1970
   * @param from tokens that were there before
   * @param reached tokens in the end
   */
  record Entry(int number, long startedMs, int from, int reached) {}

  private TokenLog(MappedByteBuffer map) {
    this.map = map;
  }

  static TokenLog create(Path file) {
    try (FileChannel channel =
        FileChannel.open(
            file,
            StandardOpenOption.CREATE_NEW,
            StandardOpenOption.READ,
            StandardOpenOption.WRITE)) {
      return new TokenLog(channel.map(FileChannel.MapMode.READ_WRITE, 0, (long) ENTRY * MOST));
    } catch (IOException e) {
      throw new UncheckedIOException("cannot make " + file, e);
    }
  }

  /** Notes a submission; the result names it. */
  synchronized int begin(int number, int from) {
    if (entries == MOST) {
      throw new IllegalStateException("more than " + MOST + " submissions to one worker");
    }
    int at = ENTRY * entries++;
    map.putInt(at, number)
        .putLong(at + 8, System.currentTimeMillis())
        .putInt(at + 16, from)
        .putInt(at + 20, from);
    return at;
  }

  void reached(int entry, int tokens) {
    map.putInt(entry + 20, tokens);
  }

  static List<Entry> read(Path file) {
    List<Entry> entries = new ArrayList<>();
    if (!Files.exists(file)) {
      // Killed before it was made.
      return entries;
    }
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      ByteBuffer map = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
      for (int at = 0; at + ENTRY <= map.limit() && map.getLong(at + 8) != 0; at += ENTRY) {
        entries.add(
            new Entry(
                map.getInt(at), map.getLong(at + 8), map.getInt(at + 16), map.getInt(at + 20)));
      }
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read " + file, e);
    }
    return entries;
  }
}
