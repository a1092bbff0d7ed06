namespace NbdKit.Tool;

/// <summary>One option of the command line.</summary>
/// <param name="Id">Which one.</param>
/// <param name="Letter">Its short form, or '\0'.</param>
/// <param name="Names">Its long forms; the first is shown.</param>
/// <param name="Argument">What its argument is called, or null if it takes none.</param>
/// <param name="Help">What it does, in a line.</param>
internal sealed record OptionEntry(OptionId Id, char Letter, string[] Names, string? Argument, string Help)
{
    /// <summary>All options, in the order in which help shows them.</summary>
    public static IReadOnlyList<OptionEntry> All { get; } =
    [
        new(OptionId.Unix, 'U', ["unix"], "PATH", "listen on a Unix socket; - makes a private one"),
        new(OptionId.Port, 'p', ["port"], "PORT", "listen on a TCP port or service; 0 picks a free port (default 10809)"),
        new(OptionId.IPAddress, 'i', ["ip-addr", "ipaddr"], "ADDRESS", "listen on this address or host only"),
        new(OptionId.IPv4Only, '4', ["ipv4-only"], null, "listen on IPv4 only"),
        new(OptionId.IPv6Only, '6', ["ipv6-only"], null, "listen on IPv6 only"),
        new(OptionId.Vsock, '\0', ["vsock"], null, "listen on a vsock, for virtual machines, with the port of -p"),
        new(OptionId.Single, 's', ["single", "stdin"], null, "serve one client on standard input and output"),
        new(OptionId.Run, '\0', ["run"], "COMMAND", "run it in /bin/sh with $uri set, then exit with its status"),
        new(OptionId.Filter, '\0', ["filter"], "NAME", "add a filter; the first is nearest the client"),
        new(OptionId.ReadOnly, 'r', ["read-only", "readonly"], null, "serve read-only"),
        new(OptionId.ExportName, 'e', ["exportname", "export-name", "export"], "NAME", "export name in the URI"),
        new(OptionId.Threads, 't', ["threads"], "N", "requests of a connection at a time (default 64)"),
        new(OptionId.Timeout, '\0', ["timeout"], "DELAY", "time limit of handshakes, or 0 (default 10s)"),
        new(OptionId.MaskHandshake, '\0', ["mask-handshake"], "MASK", "flags to offer: 1 fixed newstyle, 2 no zeroes"),
        new(OptionId.NoStructuredReplies, '\0', ["no-sr", "no-structured-replies"], null, "offer no structured replies"),
        new(OptionId.NoMetaContexts, '\0', ["no-mc", "no-meta-contexts"], null, "offer no meta contexts"),
        new(OptionId.Oldstyle, 'o', ["oldstyle", "old-style"], null, "the handshake of very old clients, without export names and TLS"),
        new(OptionId.KeepAlive, '\0', ["keepalive"], null, "probe idle TCP connections"),
        new(OptionId.PidFile, 'P', ["pidfile", "pid-file"], "FILE", "write the process id once clients can connect"),
        new(OptionId.PrintUri, '\0', ["print-uri"], null, "print the URI also with --run"),
        new(OptionId.ExitWithParent, '\0', ["exit-with-parent"], null, "stop when the parent process ends"),
        new(OptionId.Verbose, 'v', ["verbose"], null, "log everything"),
        new(OptionId.Log, '\0', ["log"], "stderr|null|FILE", "where the log goes (default stderr)"),
        new(OptionId.Name, '\0', ["name"], "NAME", "what messages begin with (default nbdkit-net)"),
        new(OptionId.Help, '\0', ["help"], null, "show help, of a plugin and filters if given"),
        new(OptionId.Version, 'V', ["version"], null, "show the version"),
        new(OptionId.DumpConfig, '\0', ["dump-config"], null, "show what is installed, as key=value"),
        new(OptionId.DumpPlugin, '\0', ["dump-plugin"], null, "show facts about the plugin, as key=value"),
        new(OptionId.LongOptions, '\0', ["long-options"], null, "list the long options"),
        new(OptionId.ShortOptions, '\0', ["short-options"], null, "list the short options"),
        new(OptionId.Tls, '\0', ["tls"], "off|on|require", "TLS: no, if the client wants it, or always"),
        new(OptionId.TlsCertificates, '\0', ["tls-certificates"], "DIRECTORY", "where ca-cert.pem, server-cert.pem, server-key.pem are"),
        new(OptionId.TlsVerifyPeer, '\0', ["tls-verify-peer"], null, "want a certificate of ca-cert.pem from TLS clients"),
        new(OptionId.Foreground, 'f', ["foreground", "no-fork"], null, "accepted: it always is"),
        new(OptionId.Newstyle, 'n', ["newstyle", "new-style"], null, "the newstyle handshake (default)"),
        new(OptionId.Unsupported, 'D', ["debug"], "FLAG", "debug flags"),
        new(OptionId.Unsupported, 'g', ["group"], "GROUP", "changing the group"),
        new(OptionId.Unsupported, '\0', ["selinux-label"], "LABEL", "labelling sockets"),
        new(OptionId.Unsupported, '\0', ["swap"], null, "locking memory for swap"),
        new(OptionId.Unsupported, '\0', ["tls-psk"], "FILE", "pre-shared keys, which .NET's TLS does not have: use --tls-certificates"),
        new(OptionId.Unsupported, 'u', ["user"], "USER", "changing the user"),
    ];

    /// <summary>The short and the first long form, as in "-p, --port=PORT".</summary>
    public string Synopsis
        => $"{(Letter == '\0' ? "    " : $"-{Letter}, ")}--{Names[0]}{(Argument is null ? "" : "=" + Argument)}";
}
