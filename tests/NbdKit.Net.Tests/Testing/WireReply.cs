namespace NbdKit.Tests.Testing;

/// <summary>The whole reply to a request, its grammar already checked.</summary>
internal sealed record WireReply(WireCall Call)
{
    /// <summary>The first error, or 0.</summary>
    public uint Error { get; init; }

    /// <summary>The text of the error chunk.</summary>
    public string Message { get; init; } = "";

    /// <summary>What was read.</summary>
    public byte[] Data { get; init; } = [];

    /// <summary>The chunks, or none if the reply is a simple one.</summary>
    public IReadOnlyList<WireChunk> Chunks { get; init; } = [];

    /// <summary>The extents of each context.</summary>
    public IReadOnlyDictionary<uint, IReadOnlyList<WireExtent>> Contexts { get; init; }
        = new Dictionary<uint, IReadOnlyList<WireExtent>>();

    /// <summary>The extents of the only context.</summary>
    public IReadOnlyList<WireExtent> Extents => Contexts.Values.Single();

    public bool IsStructured => Chunks.Count > 0;

    public ulong Cookie => Call.Cookie;
}
