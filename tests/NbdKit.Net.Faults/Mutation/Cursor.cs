using System.Buffers.Binary;

namespace NbdKit.Faults.Mutation;

/// <summary>A place in bytes that are read from their beginning to their end.</summary>
internal sealed class Cursor(byte[] bytes)
{
    public int At { get; private set; }

    public bool IsAtEnd => At == bytes.Length;

    public bool Has(long count) => count <= bytes.Length - At;

    public ushort U16() => BinaryPrimitives.ReadUInt16BigEndian(Take(2));

    public uint U32() => BinaryPrimitives.ReadUInt32BigEndian(Take(4));

    public ulong U64() => BinaryPrimitives.ReadUInt64BigEndian(Take(8));

    public void TakeRest() => At = bytes.Length;

    /// <summary>The next bytes, which must be there.</summary>
    public ReadOnlySpan<byte> Take(long count)
    {
        MutationException.Require(count <= bytes.Length - At, $"{count} bytes are due at {At} of {bytes.Length}");
        ReadOnlySpan<byte> some = bytes.AsSpan(At, (int)count);
        At += (int)count;
        return some;
    }
}
