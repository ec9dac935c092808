package dev.millrace.schemas;

import org.apache.avro.specific.AvroGenerated;
import org.apache.avro.specific.SpecificData;
import org.apache.avro.util.ClassSecurityValidator;

/**
 * Avro makes objects of classes that it was told to trust and of no others. Each generated class
 * takes its data model from here (the build puts the call in), so that the events are trusted
 * before the first of them is used, wherever that is, and without a system property that every user
 * would have to set.
 */
final class EventModel {
  static {
    ClassSecurityValidator.setGlobal(
        ClassSecurityValidator.composite(
            ClassSecurityValidator.getGlobal(), EventModel::isGeneratedHere));
  }

  private EventModel() {}

  static SpecificData create() {
    return new SpecificData(EventModel.class.getClassLoader());
  }

  private static boolean isGeneratedHere(Class<?> type) {
    return type.getPackageName().equals(EventModel.class.getPackageName())
        && type.isAnnotationPresent(AvroGenerated.class);
  }
}
