namespace NbdKit.Tool;

/// <summary>The options of the command line.</summary>
internal enum OptionId
{
    DumpConfig,
    DumpPlugin,
    ExitWithParent,
    ExportName,
    Filter,
    Foreground,
    Help,
    IPAddress,
    IPv4Only,
    IPv6Only,
    KeepAlive,
    Log,
    LongOptions,
    MaskHandshake,
    Name,
    Newstyle,
    Oldstyle,
    NoMetaContexts,
    NoStructuredReplies,
    PidFile,
    Port,
    PrintUri,
    ReadOnly,
    Run,
    ShortOptions,
    Single,
    Threads,
    Timeout,
    Tls,
    TlsCertificates,
    TlsVerifyPeer,
    Unix,
    Verbose,
    Version,
    Vsock,

    /// <summary>An option of nbdkit that this command does not have.</summary>
    Unsupported,
}
