using NbdKit.Transports;

namespace NbdKit.Client;

/// <summary>What the handshake of a client ended with: everything that its transmission phase has to know.</summary>
/// <param name="Transport">Where to send and receive; nothing has been received beyond the handshake.</param>
/// <param name="ExportName">The export, as it was asked for.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="Flags">What it can do.</param>
/// <param name="BlockSize">The request sizes that it takes; unknown if the server named none.</param>
/// <param name="Description">Its description, or null.</param>
/// <param name="CanonicalName">The name that it goes by, or null.</param>
/// <param name="StructuredReplies">Whether structured replies were negotiated.</param>
/// <param name="ExtendedHeaders">Whether extended headers were negotiated; then all replies are extended chunks.</param>
/// <param name="MetaContexts">The meta contexts that were granted, with the numbers that block status replies use for them.</param>
/// <param name="IsTls">Whether the connection is encrypted.</param>
internal sealed record ClientSession(
    Transport Transport,
    string ExportName,
    long Size,
    TransmissionFlags Flags,
    BlockSize BlockSize,
    string? Description,
    string? CanonicalName,
    bool StructuredReplies,
    bool ExtendedHeaders,
    IReadOnlyDictionary<uint, string> MetaContexts,
    bool IsTls);
