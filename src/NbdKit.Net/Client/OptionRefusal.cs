using NbdKit.Protocol;

namespace NbdKit.Client;

/// <summary>An option that the server answered with an error; the handshake can go on.</summary>
/// <param name="Option">The option.</param>
/// <param name="Type">The error.</param>
/// <param name="Text">What the server said about it, made safe for people to read; may be empty.</param>
internal sealed record OptionRefusal(OptionType Option, OptionReplyType Type, string Text)
{
    /// <summary>What this is to a host that cannot do without the option.</summary>
    public NbdClientException ToException() => new(
        Type switch
        {
            OptionReplyType.ErrUnsup or OptionReplyType.ErrBlockSizeReqd or OptionReplyType.ErrExtendedHeadersRequired
                => NbdClientError.Unsupported,
            OptionReplyType.ErrTlsReqd => NbdClientError.TlsRequired,
            OptionReplyType.ErrUnknown => NbdClientError.ExportUnknown,
            OptionReplyType.ErrShutdown => NbdClientError.ServerShutdown,
            // Policy, invalid, platform, too big, and what is unknown: another try would end the same way.
            _ => NbdClientError.Refused,
        },
        ToString());

    public override string ToString() => $"the server {What()}{(Text.Length > 0 ? ": " + Text : "")}";

    private string What() => Type switch
    {
        OptionReplyType.ErrUnsup => $"does not know {Name(Option)}",
        OptionReplyType.ErrPolicy => $"does not allow {Name(Option)}",
        OptionReplyType.ErrInvalid => $"takes {Name(Option)} for invalid",
        OptionReplyType.ErrPlatform => $"cannot do {Name(Option)} on its platform",
        // Of one export alone it may hide that there is none ("SELECTIVETLS mode").
        OptionReplyType.ErrTlsReqd when Option is OptionType.Go or OptionType.Info
            => "requires TLS for the export, or has no such export",
        OptionReplyType.ErrTlsReqd => "requires TLS",
        OptionReplyType.ErrUnknown => "has no such export, or does not open it",
        OptionReplyType.ErrShutdown => "is shutting down",
        OptionReplyType.ErrBlockSizeReqd => "requires block sizes to be asked for",
        OptionReplyType.ErrTooBig => $"takes {Name(Option)} for too big",
        OptionReplyType.ErrExtendedHeadersRequired => "requires extended headers",
        _ => $"refuses {Name(Option)} with 0x{(uint)Type:x8}",
    };

    /// <summary>The name of an option in the protocol text.</summary>
    public static string Name(OptionType option) => option switch
    {
        OptionType.ExportName => "NBD_OPT_EXPORT_NAME",
        OptionType.Abort => "NBD_OPT_ABORT",
        OptionType.List => "NBD_OPT_LIST",
        OptionType.StartTls => "NBD_OPT_STARTTLS",
        OptionType.Info => "NBD_OPT_INFO",
        OptionType.Go => "NBD_OPT_GO",
        OptionType.StructuredReply => "NBD_OPT_STRUCTURED_REPLY",
        OptionType.ListMetaContext => "NBD_OPT_LIST_META_CONTEXT",
        OptionType.SetMetaContext => "NBD_OPT_SET_META_CONTEXT",
        OptionType.ExtendedHeaders => "NBD_OPT_EXTENDED_HEADERS",
        _ => $"option {(uint)option}",
    };
}
