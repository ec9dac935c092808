package dev.millrace.inference.token;

import ai.djl.huggingface.tokenizers.jni.CharSpan;
import ai.djl.huggingface.tokenizers.jni.LibUtils;
import ai.djl.huggingface.tokenizers.jni.TokenizersLibrary;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/**
 * A checkpoint's {@code tokenizer.json} on Hugging Face's tokenizers library. This is the only file
 * that sees the library, by way of its binding in DJL.
 *
 * <p>DJL's own class around the binding is left aside: it cuts off at 512 tokens, calls home when
 * it is made, adds a begin-of-text token, and copies the texts and spans of all tokens for each
 * call. Its native library is the CPU one from the jar; nothing is downloaded.
 *
 * <p>The library is given the tokenizer without its special tokens ({@link TokenizerJson}), so that
 * it cannot take text for one. Special tokens come from marks alone.
 */
public final class HfTokenizer implements Tokenizer {
  static {
    // Read by the binding when its class loads: never ask the network, never look for CUDA.
    System.setProperty("ai.djl.offline", "true");
    System.setProperty("RUST_FLAVOR", "cpu");
  }

  private static final byte[] NOTHING = {};

  /**
   * Most characters that the library gets at once. Its regular expressions give up after a number
   * of attempts that a run of a million spaces can need, and then it ends the process.
   */
  private static final int CHUNK = 16_384;

  private final byte[][] bytes;
  private final SpecialMarks marks;
  private final List<TokenizerJson.Special> specials;
  private final Map<String, Integer> specialIds = new HashMap<>();
  private final OptionalInt beginOfText;
  private final Native library;

  private HfTokenizer(TokenizerJson json, OptionalInt beginOfText, Native library) {
    this.bytes = json.bytes();
    this.specials = json.specials();
    this.marks = new SpecialMarks(specials.stream().map(TokenizerJson.Special::content).toList());
    specials.forEach(s -> specialIds.put(s.content(), s.id()));
    this.beginOfText = beginOfText;
    this.library = library;
  }

  /**
   * Opens the tokenizer of a checkpoint folder: {@code tokenizer.json}, and {@code
   * tokenizer_config.json} where there is one.
   *
   * @throws TokenizerException if a file is missing, broken or of a kind that is not supported
   */
  public static HfTokenizer open(Path folder) throws TokenizerException {
    return open(folder, CHUNK);
  }

  /** With another number of characters than the library gets at once otherwise. */
  static HfTokenizer open(Path folder, int chunk) throws TokenizerException {
    Path file = folder.resolve("tokenizer.json");
    TokenizerJson json = TokenizerJson.read(file);
    OptionalInt begin = OptionalInt.empty();
    String name = TokenizerConfig.read(folder).beginOfText();
    if (name != null) {
      begin =
          json.specials().stream()
              .filter(s -> s.content().equals(name))
              .mapToInt(TokenizerJson.Special::id)
              .findFirst();
      if (begin.isEmpty()) {
        throw new TokenizerException(
            folder.resolve("tokenizer_config.json")
                + ": bos_token is "
                + name
                + ", which is no special token of tokenizer.json");
      }
    }
    try {
      LibUtils.checkStatus();
    } catch (RuntimeException | LinkageError e) {
      throw new TokenizerException(
          "the tokenizers library for this machine cannot be loaded (it is unpacked to .djl.ai in"
              + " the home folder, or to where DJL_CACHE_DIR says, which must be writable): "
              + e,
          e);
    }
    long handle;
    try {
      handle = TokenizersLibrary.LIB.createTokenizerFromString(json.withoutSpecials());
    } catch (RuntimeException e) {
      throw new TokenizerException(file + ": the tokenizers library refuses it: " + e, e);
    }
    TokenizersLibrary.LIB.disableTruncation(handle);
    TokenizersLibrary.LIB.disablePadding(handle);
    return new HfTokenizer(json, begin, new Native(handle, chunk));
  }

  @Override
  public int vocabSize() {
    return bytes.length;
  }

  @Override
  public SpecialMarks marks() {
    return marks;
  }

  @Override
  public int[] encode(String text, int most) {
    Ids ids = new Ids(most);
    // Guarding and taking back leaves the text as it is, but for halves of surrogate pairs.
    String guarded = marks.guard(text);
    library.encode(marks.plain(guarded, 0, guarded.length()), ids);
    return ids.toArray();
  }

  @Override
  public int[] encodeMarked(String marked, int most) {
    Ids ids = new Ids(most);
    int from = 0;
    TokenizerJson.Special before = null;
    for (int i = 0; i <= marked.length() && !ids.tooMany(); i++) {
      int index = i < marked.length() ? marks.special(marked.charAt(i)) : -1;
      if (index < 0 && i < marked.length()) {
        continue;
      }
      TokenizerJson.Special special = index < 0 ? null : specials.get(index);
      String stretch = marks.plain(marked, from, i);
      // Some vocabularies' specials take the white space beside them.
      if (before != null && before.takesRight()) {
        stretch = stretch.stripLeading();
      }
      if (special != null && special.takesLeft()) {
        stretch = stretch.stripTrailing();
      }
      library.encode(stretch, ids);
      if (special != null) {
        ids.add(special.id());
      }
      before = special;
      from = i + 1;
    }
    return ids.toArray();
  }

  @Override
  public byte[] bytes(int token) {
    return token >= 0 && token < bytes.length ? bytes[token] : NOTHING;
  }

  @Override
  public OptionalInt special(String content) {
    Integer id = specialIds.get(content);
    return id == null ? OptionalInt.empty() : OptionalInt.of(id);
  }

  @Override
  public OptionalInt beginOfText() {
    return beginOfText;
  }

  @Override
  public void close() {
    library.close();
  }

  /**
   * The native tokenizer. Encoding is thread-safe; the lock is there so that closing waits for
   * calls under way instead of freeing what they read.
   */
  private static final class Native {
    private final ReadWriteLock lock = new ReentrantReadWriteLock();
    private final int chunk;
    private long handle;

    Native(long handle, int chunk) {
      this.handle = handle;
      this.chunk = chunk;
    }

    void encode(String text, Ids out) {
      lock.readLock().lock();
      try {
        if (handle == 0) {
          throw new IllegalStateException("the tokenizer is closed");
        }
        int from = 0;
        while (text.length() - from > chunk && !out.tooMany()) {
          int to = TextCut.before(text, from + chunk, this::words);
          encodeChunk(text.substring(from, to), out);
          from = to;
        }
        if (!out.tooMany()) {
          encodeChunk(text.substring(from), out);
        }
      } finally {
        lock.readLock().unlock();
      }
    }

    private void encodeChunk(String text, Ids out) {
      if (text.isEmpty()) {
        return;
      }
      long encoding = TokenizersLibrary.LIB.encode(handle, text, false);
      try {
        out.addAll(TokenizersLibrary.LIB.getTokenIds(encoding));
      } finally {
        TokenizersLibrary.LIB.deleteEncoding(encoding);
      }
    }

    /** Where the words begin that the library cuts a text into before it makes tokens of each. */
    private BitSet words(String text) {
      long encoding = TokenizersLibrary.LIB.encode(handle, text, false);
      try {
        long[] words = TokenizersLibrary.LIB.getWordIds(encoding);
        CharSpan[] spans = TokenizersLibrary.LIB.getTokenCharSpans(encoding);
        BitSet begins = new BitSet();
        for (int i = 1; i < words.length; i++) {
          if (words[i] != words[i - 1]) {
            begins.set(text.offsetByCodePoints(0, spans[i].getStart()));
          }
        }
        return begins;
      } finally {
        TokenizersLibrary.LIB.deleteEncoding(encoding);
      }
    }

    void close() {
      lock.writeLock().lock();
      try {
        if (handle != 0) {
          TokenizersLibrary.LIB.deleteTokenizer(handle);
          handle = 0;
        }
      } finally {
        lock.writeLock().unlock();
      }
    }
  }

  /** A growing list of ids. */
  private static final class Ids {
    private final int most;
    private int[] ids = new int[64];
    private int size;

    Ids(int most) {
      this.most = most;
    }

    /** More than anybody wants: nothing needs to be added. */
    boolean tooMany() {
      return size > most;
    }

    void add(int id) {
      if (size == ids.length) {
        ids = Arrays.copyOf(ids, size * 2);
      }
      ids[size++] = id;
    }

    void addAll(long[] more) {
      if (size + more.length > ids.length) {
        ids = Arrays.copyOf(ids, Math.max(size + more.length, ids.length * 2));
      }
      for (long id : more) {
        ids[size++] = (int) id;
      }
    }

    int[] toArray() {
      return Arrays.copyOf(ids, size);
    }
  }
}
