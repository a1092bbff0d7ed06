using System.Net.Sockets;

namespace NbdKit.Tool;

// What each option means, and which go together.
internal static partial class CommandLine
{
    private static CommandOptions Apply(
        CommandOptions options, OptionEntry entry, string shown, string value)
        => entry.Id switch
        {
            OptionId.Unix => options with { UnixSocket = NotEmpty(shown, value) },
            OptionId.Port => options with { Port = NotEmpty(shown, value) },
            OptionId.IPAddress => options with { Address = NotEmpty(shown, value) },
            OptionId.IPv4Only => options with { Family = AddressFamily.InterNetwork },
            OptionId.IPv6Only => options with { Family = AddressFamily.InterNetworkV6 },
            OptionId.Vsock => options with { Vsock = true },
            OptionId.Single => options with { Single = true },
            OptionId.Run => options with { Run = value },
            OptionId.Filter => options with { Filters = [.. options.Filters, NotEmpty(shown, value)] },
            OptionId.ReadOnly => options with { ReadOnly = true },
            OptionId.ExportName => options with { ExportName = value },
            // nbdkit's 0 is its way of asking for no threads beyond the connection's own.
            OptionId.Threads => options with { Threads = Math.Max(1, (int)Number(shown, value, int.MaxValue)) },
            OptionId.Timeout => options with { HandshakeTimeout = Delay(shown, value) },
            OptionId.MaskHandshake => options with { HandshakeMask = Number(shown, value, long.MaxValue) },
            OptionId.NoStructuredReplies => options with { StructuredReplies = false },
            OptionId.NoMetaContexts => options with { MetaContexts = false },
            OptionId.Oldstyle => options with { Oldstyle = true },
            OptionId.Newstyle => options with { Oldstyle = false },
            OptionId.KeepAlive => options with { KeepAlive = true },
            OptionId.PidFile => options with { PidFile = Path.GetFullPath(NotEmpty(shown, value)) },
            OptionId.PrintUri => options with { PrintUri = true },
            OptionId.ExitWithParent => options with { ExitWithParent = true },
            OptionId.Verbose => options with { Verbose = true },
            OptionId.Log => options with { Log = LogTarget(shown, value) },
            OptionId.Name => options with { Name = NotEmpty(shown, value) },
            OptionId.Help => options with { Mode = CommandMode.Help },
            OptionId.Version => options with { Mode = CommandMode.Version },
            OptionId.DumpConfig => options with { Mode = CommandMode.DumpConfig },
            OptionId.DumpPlugin => options with { Mode = CommandMode.DumpPlugin },
            OptionId.LongOptions => options with { Mode = CommandMode.LongOptions },
            OptionId.ShortOptions => options with { Mode = CommandMode.ShortOptions },
            OptionId.Tls => options with { Tls = Tls(shown, value) },
            OptionId.TlsCertificates => options with { TlsCertificates = Path.GetFullPath(NotEmpty(shown, value)) },
            OptionId.TlsVerifyPeer => options with { TlsVerifyPeer = true },
            OptionId.Unsupported => throw new CommandException($"the option {shown} is not supported ({entry.Help})"),
            _ => options,
        };

    private static CommandOptions Checked(CommandOptions options)
    {
        if (options is { Mode: CommandMode.Serve or CommandMode.DumpPlugin, Plugin: null })
        {
            throw new CommandException($"no plugin was given; {Command.ProgramName} --help lists them");
        }
        if (options.UnixSocket is not null && options.IsTcp)
        {
            throw new CommandException("the option -U does not go together with -p and -i");
        }
        if (options.Single && (options.UnixSocket is not null || options.IsTcp || options.Run is not null))
        {
            throw new CommandException("the option -s does not go together with -U, -p, -i and --run");
        }
        if (options is { Single: true, Plugin: "sh", Parameters: [{ Value: "-" }, ..] })
        {
            throw new CommandException("the option -s does not go together with a script that is read from standard input");
        }
        if (options.Vsock && (options.UnixSocket is not null || options.Address is not null || options.Single))
        {
            throw new CommandException("the option --vsock does not go together with -U, -i and -s");
        }
        if (options is { Oldstyle: true, Tls: TlsMode.On or TlsMode.Require })
        {
            throw new CommandException("the option -o does not go together with --tls: the oldstyle handshake has no TLS");
        }
        if (options is { TlsVerifyPeer: true, Tls: TlsMode.Off })
        {
            throw new CommandException("the option --tls-verify-peer does not go together with --tls=off");
        }
        if (options.Tls == TlsMode.Require && (options.HandshakeMask & 1) == 0)
        {
            throw new CommandException("the option --tls=require does not go together with a --mask-handshake without 1");
        }
        return options.Run is not null && !options.HasTransport
            ? options with { UnixSocket = CommandOptions.PrivateUnixSocket }
            : options;
    }

    private static TlsMode Tls(string shown, string value) => value switch
    {
        "off" => TlsMode.Off,
        "on" => TlsMode.On,
        "require" => TlsMode.Require,
        _ => throw new CommandException($"{shown}={value}: the value must be off, on or require"),
    };

    private static string LogTarget(string shown, string value) => NotEmpty(shown, value) switch
    {
        "default" => LogFactory.ToStandardError,
        "syslog" => throw new CommandException(
            $"{shown}={value}: the system log is not supported; use stderr, null or a file"),
        LogFactory.ToStandardError or LogFactory.ToNowhere => value,
        _ => Path.GetFullPath(value),
    };

    private static string NotEmpty(string shown, string value)
        => value.Length > 0
            ? value
            : throw new CommandException($"the option {shown} needs an argument that is not empty");

    private static TimeSpan Delay(string shown, string value)
    {
        TimeSpan delay = Parsed(shown, value, NbdParse.Delay);
        return delay == TimeSpan.Zero ? Timeout.InfiniteTimeSpan : delay;
    }

    private static long Number(string shown, string value, long maximum)
        => Parsed(shown, value, text => NbdParse.Integer(text, 0, maximum));

    private static T Parsed<T>(string shown, string value, Func<string, T> parse)
    {
        try
        {
            return parse(value);
        }
        catch (FormatException e)
        {
            throw new CommandException($"{shown}: {e.Message}", e);
        }
    }
}
