package dev.millrace.schemas;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import org.apache.avro.AvroRuntimeException;
import org.apache.avro.io.Decoder;
import org.apache.avro.util.Utf8;
import org.jspecify.annotations.Nullable;

/**
 * Avro's binary encoding over the bytes of one record, trusting none of them: every length and
 * count is compared with the bytes that are left before anything is allocated for it. Avro's own
 * limits are system properties of the whole JVM, and its default is two billion.
 *
 * <p>That a count cannot exceed the bytes left holds because {@link SchemaLimits} refuses schemas
 * whose array items take no bytes.
 */
final class BoundedDecoder extends Decoder {
  private static final int LONGEST_VARINT = 10;

  private final ByteBuffer in;

  BoundedDecoder(byte[] bytes, int offset) {
    in = ByteBuffer.wrap(bytes, offset, bytes.length - offset).order(ByteOrder.LITTLE_ENDIAN);
  }

  /**
   * Bytes not yet read. Not Avro's {@code remainingBytes()}: by that, its reader refuses a
   * collection whose items are shorter than the reader's schema allows, which items of an older
   * writer are.
   */
  int left() {
    return in.remaining();
  }

  @Override
  public void readNull() {}

  @Override
  public boolean readBoolean() throws IOException {
    need(1, "a boolean");
    byte value = in.get();
    if (value != 0 && value != 1) {
      throw new AvroRuntimeException("a boolean is the byte " + value + at());
    }
    return value == 1;
  }

  @Override
  public int readInt() throws IOException {
    long value = readLong();
    if (value != (int) value) {
      throw new AvroRuntimeException("an int has the value " + value + at());
    }
    return (int) value;
  }

  @Override
  public long readLong() throws IOException {
    long value = 0;
    for (int i = 0; i < LONGEST_VARINT; i++) {
      need(1, "a number");
      byte b = in.get();
      value |= (b & 0x7FL) << (7 * i);
      if (b >= 0) {
        return (value >>> 1) ^ -(value & 1);
      }
    }
    throw new AvroRuntimeException("a number is longer than " + LONGEST_VARINT + " bytes" + at());
  }

  @Override
  public float readFloat() throws IOException {
    need(Float.BYTES, "a float");
    return in.getFloat();
  }

  @Override
  public double readDouble() throws IOException {
    need(Double.BYTES, "a double");
    return in.getDouble();
  }

  @Override
  public Utf8 readString(@Nullable Utf8 old) throws IOException {
    return new Utf8(readString());
  }

  @Override
  public String readString() throws IOException {
    int length = length("a string");
    String text =
        new String(in.array(), in.arrayOffset() + in.position(), length, StandardCharsets.UTF_8);
    if (text.indexOf('\uFFFD') >= 0) {
      checkUtf8(in.slice(in.position(), length));
    }
    in.position(in.position() + length);
    return text;
  }

  /** Decoding to a string replaces what is no UTF-8 in silence. */
  private void checkUtf8(ByteBuffer bytes) {
    try {
      CharBuffer unused = StandardCharsets.UTF_8.newDecoder().decode(bytes);
    } catch (CharacterCodingException e) {
      throw new AvroRuntimeException("a string is not UTF-8" + at(), e);
    }
  }

  @Override
  public void skipString() throws IOException {
    skip(length("a string"));
  }

  @Override
  public ByteBuffer readBytes(@Nullable ByteBuffer old) throws IOException {
    byte[] bytes = new byte[length("bytes")];
    in.get(bytes);
    return ByteBuffer.wrap(bytes);
  }

  @Override
  public void skipBytes() throws IOException {
    skip(length("bytes"));
  }

  @Override
  public void readFixed(byte[] bytes, int start, int length) throws IOException {
    need(length, "fixed bytes");
    in.get(bytes, start, length);
  }

  @Override
  public void skipFixed(int length) throws IOException {
    need(length, "fixed bytes");
    skip(length);
  }

  @Override
  public int readEnum() throws IOException {
    return readInt();
  }

  @Override
  public int readIndex() throws IOException {
    return readInt();
  }

  @Override
  public long readArrayStart() throws IOException {
    return count("an array");
  }

  @Override
  public long arrayNext() throws IOException {
    return count("an array");
  }

  @Override
  public long skipArray() throws IOException {
    return skipBlocks("an array");
  }

  @Override
  public long readMapStart() throws IOException {
    return count("a map");
  }

  @Override
  public long mapNext() throws IOException {
    return count("a map");
  }

  @Override
  public long skipMap() throws IOException {
    return skipBlocks("a map");
  }

  /** Items of the next block. */
  private long count(String what) throws IOException {
    long count = readLong();
    if (count < 0) {
      // A negative count is followed by the block's size in bytes.
      blockSize(what);
      count = -count;
    }
    if (count < 0 || count > in.remaining()) {
      throw new EOFException(
          what + " claims " + count + " items where " + in.remaining() + " bytes are left" + at());
    }
    return count;
  }

  /** Skips blocks that say their size; a count above 0 is one that the caller must skip itself. */
  private long skipBlocks(String what) throws IOException {
    long count = readLong();
    while (count < 0) {
      skip(blockSize(what));
      count = readLong();
    }
    if (count > in.remaining()) {
      throw new EOFException(
          what + " claims " + count + " items where " + in.remaining() + " bytes are left" + at());
    }
    return count;
  }

  private int blockSize(String what) throws IOException {
    long size = readLong();
    if (size < 0 || size > in.remaining()) {
      throw new EOFException(
          what + " has a block of " + size + " bytes where " + in.remaining() + " are left" + at());
    }
    return (int) size;
  }

  private int length(String what) throws IOException {
    long length = readLong();
    if (length < 0 || length > in.remaining()) {
      throw new EOFException(
          what + " claims " + length + " bytes where " + in.remaining() + " are left" + at());
    }
    return (int) length;
  }

  private void need(int bytes, String what) throws IOException {
    if (bytes > in.remaining()) {
      throw new EOFException("the record ends inside " + what + at());
    }
  }

  private void skip(int bytes) {
    in.position(in.position() + bytes);
  }

  private String at() {
    return ", at byte " + in.position() + " of " + in.limit();
  }
}
