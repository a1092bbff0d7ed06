using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>What a server without TLS, with one export, must answer to options in any order.</summary>
internal sealed class OptionModel
{
    private bool _structured;
    private bool _listed;
    private bool _selected;

    public bool IsExtended { get; private set; }

    public bool Aborted { get; private set; }

    /// <summary>How many options were sent from the one on that entered transmission; 0 if none did.</summary>
    public int Entered { get; private set; }

    public IEnumerable<string> Answer(uint option)
    {
        if (Entered > 0)
        {
            // No request begins like an option.
            Entered++;
            return [];
        }
        if (Aborted)
        {
            return [];
        }
        switch (option)
        {
            case Opt.Abort:
                Aborted = true;
                return [Reply(option, Rep.Ack)];
            case Opt.List when _listed:
                return [Reply(option, Rep.Policy)];
            case Opt.List:
                _listed = true;
                return [Reply(option, Rep.Server), Reply(option, Rep.Ack)];
            case Opt.Info:
                return [Reply(option, Rep.Info), Reply(option, Rep.Ack)];
            case Opt.Go:
                Entered = 1;
                return [Reply(option, Rep.Info), Reply(option, Rep.Ack)];
            case Opt.StructuredReply when IsExtended:
                return [Reply(option, Rep.ExtendedHeadersRequired)];
            case Opt.StructuredReply:
                _structured = true;
                return [Reply(option, Rep.Ack)];
            case Opt.ExtendedHeaders:
                IsExtended = true;
                return [Reply(option, Rep.Ack)];
            case Opt.ListMeta:
                return [Reply(option, Rep.MetaContext), Reply(option, Rep.Ack)];
            case Opt.SetMeta when !_structured && !IsExtended:
                _selected = false;
                return [Reply(option, Rep.Invalid)];
            case Opt.SetMeta:
                _selected = true;
                return [Reply(option, Rep.MetaContext, 1), Reply(option, Rep.Ack)];
            default:
                return [Reply(option, Rep.Unsup)];
        }
    }

    /// <summary>The answers to a read and a block status.</summary>
    public IEnumerable<string> Transmission()
        => IsExtended
            ?
            [
                $"extended {Cmd.Read} {ChunkType.OffsetData:x}",
                $"extended {Cmd.BlockStatus} {(_selected ? ChunkType.BlockStatusExtended : ChunkType.Error):x}",
            ]
            : _structured
                ?
                [
                    $"chunk {Cmd.Read} {ChunkType.OffsetData:x}",
                    $"chunk {Cmd.BlockStatus} {(_selected ? ChunkType.BlockStatus : ChunkType.Error):x}",
                ]
                : [$"simple {Cmd.Read} {WireError.Ok}", $"simple {Cmd.BlockStatus} {WireError.Inval}"];

    private static string Reply(uint option, uint type, uint id = 0) => $"{option}:{type:x}:{id}";
}
