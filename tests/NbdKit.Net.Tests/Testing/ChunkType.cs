namespace NbdKit.Tests.Testing;

/// <summary>Structured reply types.</summary>
internal static class ChunkType
{
    public const ushort None = 0;
    public const ushort OffsetData = 1;
    public const ushort OffsetHole = 2;
    public const ushort BlockStatus = 5;
    public const ushort BlockStatusExtended = 6;
    public const ushort Error = 0x8001;
    public const ushort ErrorOffset = 0x8002;
}
