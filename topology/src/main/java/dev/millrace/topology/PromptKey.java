package dev.millrace.topology;

import java.nio.ByteBuffer;
import java.util.zip.CRC32C;
import org.apache.kafka.common.utils.Bytes;

/**
 * Names a stored prompt: the offset of its record, and a checksum of its value so that a topic that
 * was deleted and made again does not bring other prompts under the same name. The partition is the
 * task's own. Sorts by offset.
 */
record PromptKey(long offset, int checksum) implements Comparable<PromptKey> {
  static final int BYTES = 12;

  static PromptKey of(PromptRecord record) {
    CRC32C crc = new CRC32C();
    byte[] value = record.value();
    if (value != null) {
      crc.update(value);
    }
    return new PromptKey(record.offset(), (int) crc.getValue());
  }

  static PromptKey of(Bytes storeKey) {
    ByteBuffer in = ByteBuffer.wrap(storeKey.get());
    return new PromptKey(in.getLong(), in.getInt());
  }

  /** The store's key of the piece with that number. */
  Bytes at(int number) {
    return Bytes.wrap(
        ByteBuffer.allocate(BYTES + 4).putLong(offset).putInt(checksum).putInt(number).array());
  }

  /**
   * The store's key of the progress record with that number of an owner of the task. These sort by
   * the owners' terms: one that was cut off and writes on writes over nothing of its successor's.
   */
  Bytes at(int term, int number) {
    return Bytes.wrap(
        ByteBuffer.allocate(BYTES + 8)
            .putLong(offset)
            .putInt(checksum)
            .putInt(term)
            .putInt(number)
            .array());
  }

  /** Of a key of a progress record. */
  static int term(Bytes storeKey) {
    return ByteBuffer.wrap(storeKey.get()).getInt(BYTES);
  }

  static int number(Bytes storeKey) {
    return ByteBuffer.wrap(storeKey.get()).getInt(BYTES);
  }

  @Override
  public int compareTo(PromptKey other) {
    int byOffset = Long.compare(offset, other.offset);
    return byOffset != 0 ? byOffset : Integer.compareUnsigned(checksum, other.checksum);
  }
}
