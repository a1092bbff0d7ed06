namespace NbdKit.Plugins.Data;

/// <summary>Makes bytes of an expression: reads its files, runs its scripts, puts names in place.</summary>
internal sealed partial class DataEvaluator(long memoryLimit)
{
    // Names that are made of themselves, over and over, are not bounded by how deep the text is.
    private const int DeepestPiece = 500;

    /// <exception cref="NbdException">Something does not fit or cannot be read; the message says what and where.</exception>
    public Task<DataPiece> EvaluateAsync(DataNode node, CancellationToken cancellationToken)
        => EvaluateAsync(node, new DataScope(null), cancellationToken);

    private async Task<DataPiece> EvaluateAsync(DataNode node, DataScope scope, CancellationToken cancellationToken)
    {
        switch (node.Kind)
        {
            case DataNodeKind.Bytes:
                return DataPiece.Of(node.Bytes);
            case DataNodeKind.Fill:
                return DataPiece.Fill(node.Bytes.Span[0], node.Number);
            case DataNodeKind.Name:
                return scope.Find(node.Text) ?? throw node.Fault($"the name \\{node.Text} is not known here");
            case DataNodeKind.File:
                return await FileAsync(node, 0, null, cancellationToken).ConfigureAwait(false);
            case DataNodeKind.Script:
                return await ScriptAsync(node, 0, null, cancellationToken).ConfigureAwait(false);
            case DataNodeKind.Repeat:
                DataPiece round = await EvaluateAsync(node.Parts[0], new DataScope(scope), cancellationToken).ConfigureAwait(false);
                return round.Size != 0 && node.Number > long.MaxValue / round.Size
                    ? throw TooLarge(node)
                    : DataPiece.Repeat(round, round.Size * node.Number);
            case DataNodeKind.Slice:
                return await SliceAsync(node, scope, cancellationToken).ConfigureAwait(false);
            case DataNodeKind.List:
                return await ListAsync(node, new DataScope(scope), cancellationToken).ConfigureAwait(false);
            default:
                throw new InvalidOperationException($"{node.Kind} has no bytes.");
        }
    }

    private async Task<DataPiece> ListAsync(DataNode list, DataScope scope, CancellationToken cancellationToken)
    {
        var assembly = new DataAssembly();
        foreach (DataNode part in list.Parts)
        {
            switch (part.Kind)
            {
                case DataNodeKind.MoveTo:
                    assembly.MoveTo(part.Number);
                    break;
                case DataNodeKind.MoveBy:
                    assembly.MoveTo(Moved(part, assembly.Offset, part.Number));
                    break;
                case DataNodeKind.Align:
                    long over = assembly.Offset % part.Number;
                    assembly.MoveTo(Moved(part, assembly.Offset, over == 0 ? 0 : part.Number - over));
                    break;
                case DataNodeKind.Assign:
                    DataPiece named = await EvaluateAsync(part.Parts[0], scope, cancellationToken).ConfigureAwait(false);
                    scope.Set(part.Text, named.Depth <= DeepestPiece ? named : throw part.Fault("names are nested too deep"));
                    break;
                default:
                    DataPiece piece = await EvaluateAsync(part, scope, cancellationToken).ConfigureAwait(false);
                    Moved(part, assembly.Offset, piece.Size);
                    assembly.Add(piece);
                    break;
            }
        }
        return assembly.Build();
    }

    private async Task<DataPiece> SliceAsync(DataNode slice, DataScope scope, CancellationToken cancellationToken)
    {
        DataNode whole = slice.Parts[0];
        // Only what is wanted is read of a source, which may have no end.
        if (whole.Kind is DataNodeKind.File or DataNodeKind.Script)
        {
            return await (whole.Kind == DataNodeKind.File
                ? FileAsync(whole, slice.Number, slice.End, cancellationToken)
                : ScriptAsync(whole, slice.Number, slice.End, cancellationToken)).ConfigureAwait(false);
        }
        DataPiece piece = await EvaluateAsync(whole, new DataScope(scope), cancellationToken).ConfigureAwait(false);
        long end = slice.End ?? piece.Size;
        return slice.Number <= end && end <= piece.Size
            ? piece.Slice(slice.Number, end)
            : throw slice.Fault($"[{slice.Number}:{slice.End}] is not inside the {piece.Size} bytes that it cuts");
    }

    private static long Moved(DataNode node, long offset, long by)
        => by > long.MaxValue - offset ? throw TooLarge(node)
            : offset + by < 0 ? throw node.Fault($"{-by} bytes back from offset {offset} is before the start")
            : offset + by;

    private static NbdException TooLarge(DataNode node) => node.Fault("the disk would be larger than 2^63-1 bytes");
}
