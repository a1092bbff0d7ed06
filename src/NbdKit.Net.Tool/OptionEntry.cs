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
        new(OptionId.Unix, 'U', ["unix"], "PATH", "listen on a Unix socket; - picks a private path, removed at exit"),
        new(OptionId.Port, 'p', ["port"], "PORT", "listen on a TCP port, by number or service name; 0 picks a free one (default 10809)"),
        new(OptionId.IPAddress, 'i', ["ip-addr", "ipaddr"], "ADDRESS", "listen on this address or host only"),
        new(OptionId.IPv4Only, '4', ["ipv4-only"], null, "listen on IPv4 only"),
        new(OptionId.IPv6Only, '6', ["ipv6-only"], null, "listen on IPv6 only"),
        new(OptionId.Single, 's', ["single", "stdin"], null, "serve one client on the standard input and output, then exit"),
        new(OptionId.Run, '\0', ["run"], "COMMAND", "run COMMAND in /bin/sh with $uri, $unixsocket, $port and $exportname, exit with its status"),
        new(OptionId.Filter, '\0', ["filter"], "NAME", "put a filter in front of the plugin; repeatable, the first is nearest the client"),
        new(OptionId.ReadOnly, 'r', ["read-only", "readonly"], null, "serve read-only"),
        new(OptionId.ExportName, 'e', ["exportname", "export-name", "export"], "NAME", "the export name in the URI"),
        new(OptionId.Threads, 't', ["threads"], "N", "requests of one connection that run at a time (default 64)"),
        new(OptionId.Timeout, '\0', ["timeout"], "DELAY", "time that a client has for its handshake, such as 500ms; 0 for no limit (default 10)"),
        new(OptionId.MaskHandshake, '\0', ["mask-handshake"], "MASK", "handshake flags that may be offered: 1 fixed newstyle, 2 no zeroes"),
        new(OptionId.NoStructuredReplies, '\0', ["no-sr", "no-structured-replies"], null, "do not offer structured replies"),
        new(OptionId.NoMetaContexts, '\0', ["no-mc", "no-meta-contexts"], null, "do not offer meta contexts"),
        new(OptionId.PidFile, 'P', ["pidfile", "pid-file"], "FILE", "write the process id to FILE once clients can connect"),
        new(OptionId.PrintUri, '\0', ["print-uri"], null, "print the URI also with --run"),
        new(OptionId.ExitWithParent, '\0', ["exit-with-parent"], null, "stop when the parent process ends"),
        new(OptionId.Verbose, 'v', ["verbose"], null, "log everything"),
        new(OptionId.Log, '\0', ["log"], "stderr|null|FILE", "where the log goes (default stderr); a FILE is appended to"),
        new(OptionId.Name, '\0', ["name"], "NAME", "what messages begin with (default nbdkit-net)"),
        new(OptionId.Help, '\0', ["help"], null, "show this help, or that of the plugin and filters given"),
        new(OptionId.Version, 'V', ["version"], null, "show the version"),
        new(OptionId.DumpConfig, '\0', ["dump-config"], null, "show what this installation has, as key=value"),
        new(OptionId.DumpPlugin, '\0', ["dump-plugin"], null, "show facts about the plugin, as key=value"),
        new(OptionId.LongOptions, '\0', ["long-options"], null, "list the long options"),
        new(OptionId.ShortOptions, '\0', ["short-options"], null, "list the short options"),
        new(OptionId.Tls, '\0', ["tls"], "off", "TLS is not supported yet; on and require are refused"),
        new(OptionId.Foreground, 'f', ["foreground", "no-fork"], null, "accepted: the command always stays in the foreground"),
        new(OptionId.Newstyle, 'n', ["newstyle", "new-style"], null, "accepted: newstyle is what is served"),
        new(OptionId.KeepAlive, '\0', ["keepalive"], null, "accepted, without effect"),
        new(OptionId.Unsupported, 'D', ["debug"], "FLAG", "debug flags"),
        new(OptionId.Unsupported, 'g', ["group"], "GROUP", "changing the group"),
        new(OptionId.Unsupported, 'o', ["oldstyle", "old-style"], null, "the oldstyle handshake"),
        new(OptionId.Unsupported, '\0', ["selinux-label"], "LABEL", "labelling sockets"),
        new(OptionId.Unsupported, '\0', ["swap"], null, "locking memory for swap"),
        new(OptionId.Unsupported, '\0', ["tls-certificates"], "DIRECTORY", "TLS"),
        new(OptionId.Unsupported, '\0', ["tls-psk"], "FILE", "TLS"),
        new(OptionId.Unsupported, '\0', ["tls-verify-peer"], null, "TLS"),
        new(OptionId.Unsupported, 'u', ["user"], "USER", "changing the user"),
        new(OptionId.Unsupported, '\0', ["vsock"], null, "AF_VSOCK"),
    ];

    /// <summary>The short and the first long form, as in "-p, --port=PORT".</summary>
    public string Synopsis
        => $"{(Letter == '\0' ? "    " : $"-{Letter}, ")}--{Names[0]}{(Argument is null ? "" : "=" + Argument)}";
}
