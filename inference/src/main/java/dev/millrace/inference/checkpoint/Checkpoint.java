package dev.millrace.inference.checkpoint;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * The weights of a checkpoint folder: {@code model.safetensors}, or the shards that {@code
 * model.safetensors.index.json} names. The files are mapped, not read: opening is quick, and pages
 * that the machine drops come back from disk. Whoever opens it closes it, after everything that
 * reads its weights.
 */
public final class Checkpoint implements AutoCloseable {
  private static final String SINGLE = "model.safetensors";
  private static final String INDEX = "model.safetensors.index.json";
  private static final String WEIGHT = ".weight";

  /** Beyond these a scale or its inverse is soon infinite or nothing in float. */
  private static final float LEAST_SCALE = 1e-30f;

  private static final float MOST_SCALE = 1e30f;

  private final Path folder;
  private final Arena arena;
  private final Map<String, Place> tensors;

  private record Place(Path file, SafetensorsFile.Entry entry) {}

  private Checkpoint(Path folder, Arena arena, Map<String, Place> tensors) {
    this.folder = folder;
    this.arena = arena;
    this.tensors = tensors;
  }

  /**
   * Maps the weights and checks every header.
   *
   * @throws InvalidCheckpointException if a file is missing or damaged
   */
  public static Checkpoint open(Path folder) {
    Arena arena = Arena.ofShared();
    try {
      Path index = folder.resolve(INDEX);
      Map<String, Place> tensors =
          Files.exists(index) ? sharded(folder, index, arena) : single(folder, arena);
      return new Checkpoint(folder, arena, tensors);
    } catch (RuntimeException | Error e) {
      arena.close();
      throw e;
    }
  }

  private static Map<String, Place> single(Path folder, Arena arena) {
    Path file = folder.resolve(SINGLE);
    if (!Files.exists(file)) {
      throw new InvalidCheckpointException(
          "%s has neither %s nor %s: is it the folder of a Hugging Face checkpoint?"
              .formatted(folder, SINGLE, INDEX));
    }
    Map<String, Place> tensors = new TreeMap<>();
    SafetensorsFile.open(file, arena)
        .entries()
        .forEach((name, entry) -> tensors.put(name, new Place(file, entry)));
    return tensors;
  }

  private static Map<String, Place> sharded(Path folder, Path index, Arena arena) {
    JsonNode map = readIndex(index).path("weight_map");
    if (!map.isObject() || map.isEmpty()) {
      throw new InvalidCheckpointException(
          index + " has no weight_map: download the checkpoint again");
    }
    Map<String, SafetensorsFile> shards = new LinkedHashMap<>();
    Map<String, Place> tensors = new TreeMap<>();
    for (Map.Entry<String, JsonNode> field : map.properties()) {
      String name = field.getKey();
      String shard = field.getValue().isTextual() ? field.getValue().textValue() : "";
      // A name from a download: it must not lead out of the folder.
      if (!shard.matches("[A-Za-z0-9_][A-Za-z0-9._-]*\\.safetensors")) {
        throw new InvalidCheckpointException(
            "%s puts tensor %s into %s: a shard must be a .safetensors file beside the index"
                .formatted(index, name, field.getValue()));
      }
      SafetensorsFile file =
          shards.computeIfAbsent(shard, s -> SafetensorsFile.open(folder.resolve(s), arena));
      SafetensorsFile.Entry entry = file.entries().get(name);
      if (entry == null) {
        throw new InvalidCheckpointException(
            "%s puts tensor %s into %s, which does not hold it: download both again"
                .formatted(index, name, shard));
      }
      tensors.put(name, new Place(file.file(), entry));
    }
    return tensors;
  }

  private static JsonNode readIndex(Path index) {
    try {
      return new ObjectMapper()
          .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
          .readTree(Files.readAllBytes(index));
    } catch (IOException e) {
      throw new InvalidCheckpointException(
          index + " is no sound JSON: " + e.getMessage() + ". Download it again.", e);
    }
  }

  /** Names of all tensors. */
  public Set<String> names() {
    return tensors.keySet();
  }

  public boolean has(String name) {
    return tensors.containsKey(name);
  }

  /**
   * A tensor that must be there with this shape; one of FP8 with its scales.
   *
   * @throws InvalidCheckpointException if it is missing, of another shape, or in a format that
   *     {@link WeightFormat} does not know, or if it has no scales
   */
  public WeightData tensor(String name, int... shape) {
    Place place = tensors.get(name);
    if (place == null) {
      throw new InvalidCheckpointException(
          "%s has no tensor %s, which config.json asks for with shape %s: weights and config.json do not belong together, or a shard is missing"
              .formatted(folder, name, Arrays.toString(shape)));
    }
    SafetensorsFile.Entry entry = place.entry;
    long[] expected = Arrays.stream(shape).asLongStream().toArray();
    if (!Arrays.equals(expected, entry.shape())) {
      throw new InvalidCheckpointException(
          "%s: tensor %s has shape %s, config.json asks for %s: weights and config.json do not belong together"
              .formatted(
                  place.file, name, Arrays.toString(entry.shape()), Arrays.toString(expected)));
    }
    WeightFormat format = WeightFormat.ofDtype(entry.dtype());
    if (format == null) {
      throw new InvalidCheckpointException(
          "%s: tensor %s is stored as %s; this version reads %s: use a checkpoint in one of these"
              .formatted(place.file, name, entry.dtype(), WeightFormat.names()));
    }
    Quantization quantization = format == WeightFormat.F8_E4M3 ? quantization(name) : null;
    return new WeightData(name, format, shape, entry.data(), quantization);
  }

  /** Of the matrix NAME.weight: the scales NAME.weight_scale and NAME.input_scale. */
  private Quantization quantization(String name) {
    String module =
        name.endsWith(WEIGHT) ? name.substring(0, name.length() - WEIGHT.length()) : name;
    Quantization scales =
        new Quantization(scale(module + ".weight_scale"), scale(module + ".input_scale"));
    scales.check(name);
    return scales;
  }

  /** Projections of keys and values beside which the scale that an FP8 cache wants is missing. */
  public List<String> withoutKvScale() {
    return tensors.keySet().stream()
        .filter(
            n ->
                n.endsWith(".k_proj.weight") && !has(n.replace(WEIGHT, ".k_scale"))
                    || n.endsWith(".v_proj.weight") && !has(n.replace(WEIGHT, ".v_scale")))
        .toList();
  }

  /**
   * A tensor of one number that others are multiplied by.
   *
   * @throws InvalidCheckpointException if it is missing, not one number, or not within [{@value
   *     #LEAST_SCALE}, {@value #MOST_SCALE}]
   */
  public float scale(String name) {
    Place place = tensors.get(name);
    if (place == null) {
      throw new InvalidCheckpointException(
          "%s has no tensor %s, which FP8 weights need: %s"
              .formatted(
                  folder, name, "a shard is missing, or they were quantised in another way"));
    }
    long[] shape = place.entry.shape();
    WeightFormat format = WeightFormat.ofDtype(place.entry.dtype());
    boolean one = Arrays.stream(shape).allMatch(n -> n == 1);
    if (!one || format == null || format == WeightFormat.F8_E4M3) {
      throw new InvalidCheckpointException(
          "%s: the scale %s is %s %s; this version reads one number of F32, BF16 or F16"
              .formatted(place.file, name, place.entry.dtype(), Arrays.toString(shape)));
    }
    float scale = format.decode(place.entry.data(), 0);
    if (!(scale >= LEAST_SCALE && scale <= MOST_SCALE)) {
      throw new InvalidCheckpointException(
          "%s: the scale %s is %s, it must be from %s to %s: the checkpoint is damaged"
              .formatted(place.file, name, scale, LEAST_SCALE, MOST_SCALE));
    }
    return scale;
  }

  /** Unmaps the files: no {@link WeightData} of this checkpoint may be used after it. */
  @Override
  public void close() {
    arena.close();
  }
}
