namespace NbdKit.Faults.Mutation;

/// <summary>One field of a message.</summary>
/// <param name="Kind">What it means.</param>
/// <param name="Bytes">Its bytes; numbers are big-endian.</param>
/// <param name="Covers">The number of fields behind it whose bytes it counts, if it is a length.</param>
internal sealed record WireField(FieldKind Kind, byte[] Bytes, int Covers = 0);
