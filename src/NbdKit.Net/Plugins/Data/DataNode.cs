namespace NbdKit.Plugins.Data;

/// <summary>A part of a data expression, before its files are read and its names are known.</summary>
/// <param name="Kind">What it is, which also says which of the other members mean something.</param>
internal sealed record DataNode(DataNodeKind Kind)
{
    /// <summary>Bytes: they themselves. Fill: the one.</summary>
    public ReadOnlyMemory<byte> Bytes { get; init; }

    /// <summary>The name, the path of a file, or the script.</summary>
    public string Text { get; init; } = "";

    /// <summary>A count, an offset or an alignment; the first byte of a slice.</summary>
    public long Number { get; init; }

    /// <summary>The byte after the last one of a slice; null for all there are.</summary>
    public long? End { get; init; }

    /// <summary>The parts of a list; the one that is repeated, cut or named.</summary>
    public IReadOnlyList<DataNode> Parts
    {
        get;
        init
        {
            field = value;
            Depth = 1 + value.Select(part => part.Depth).DefaultIfEmpty(-1).Max();
        }
    }
    = [];

    /// <summary>How many are inside each other, at most; 0 for one without parts.</summary>
    public int Depth { get; private init; }

    /// <summary>Where it was written, for error texts; empty if it was not.</summary>
    public string Place { get; init; } = "";

    /// <summary>Whether it stands for bytes, so that it can be repeated, cut and named.</summary>
    public bool IsData => Kind is not (DataNodeKind.MoveTo or DataNodeKind.MoveBy or DataNodeKind.Align or DataNodeKind.Assign);

    /// <summary>An error at this place.</summary>
    public NbdException Fault(string what, Exception? cause = null)
        => new(NbdError.InvalidArgument, Place.Length == 0 ? $"data: {what}" : $"data: {Place}: {what}", cause);
}
