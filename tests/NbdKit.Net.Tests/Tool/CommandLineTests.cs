using System.Net.Sockets;
using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class CommandLineTests
{
    private static CommandOptions Parse(string arguments) => CommandLine.Parse(arguments.Split(' '));

    private static string Failure(string arguments)
        => Assert.Throws<CommandException>(() => Parse(arguments))!.Message;

    [TestCase("-U /s"), TestCase("-U/s"), TestCase("--unix /s"), TestCase("--unix=/s"), TestCase("-rU /s")]
    [TestCase("-rU/s")]
    public void A_Unix_socket_is_given_in_each_form(string option)
        => Assert.That(Parse(option + " memory").UnixSocket, Is.EqualTo("/s"));

    [Test]
    public void A_dash_asks_for_a_private_Unix_socket()
        => Assert.That(Parse("-U - memory").UnixSocket, Is.EqualTo(CommandOptions.PrivateUnixSocket));

    [TestCase("-p10810"), TestCase("-p 10810"), TestCase("--port=10810"), TestCase("--port 10810")]
    [TestCase("-fnp10810")]
    public void A_port_is_given_in_each_form(string option)
        => Assert.That(Parse(option + " memory").Port, Is.EqualTo("10810"));

    [TestCase("-i::1"), TestCase("-i ::1"), TestCase("--ip-addr=::1"), TestCase("--ipaddr ::1")]
    public void An_address_is_given_in_each_form(string option)
        => Assert.That(Parse(option + " memory").Address, Is.EqualTo("::1"));

    [TestCase("-4", AddressFamily.InterNetwork), TestCase("--ipv4-only", AddressFamily.InterNetwork)]
    [TestCase("-6", AddressFamily.InterNetworkV6), TestCase("--ipv6-only", AddressFamily.InterNetworkV6)]
    public void One_family_is_asked_for(string option, AddressFamily family)
        => Assert.That(Parse(option + " memory").Family, Is.EqualTo(family));

    [TestCase("-r"), TestCase("--readonly"), TestCase("--read-only"), TestCase("-fvr"), TestCase("--read")]
    public void Read_only_is_asked_for(string option) => Assert.That(Parse(option + " memory").ReadOnly, Is.True);

    [TestCase("-e disk"), TestCase("-edisk"), TestCase("--export disk"), TestCase("--exportname=disk")]
    [TestCase("--export-name disk")]
    public void An_export_name_is_given_in_each_form(string option)
        => Assert.That(Parse(option + " memory").ExportName, Is.EqualTo("disk"));

    [TestCase("-f"), TestCase("--foreground"), TestCase("--no-fork"), TestCase("-n"), TestCase("--newstyle")]
    [TestCase("--new-style")]
    public void Some_options_change_nothing(string option)
    {
        CommandOptions options = Parse(option + " memory");
        Assert.That(
            options with { Filters = [], Parameters = [] },
            Is.EqualTo(new CommandOptions { Plugin = "memory", Filters = [], Parameters = [] }));
    }

    [TestCase("-P /p"), TestCase("-P/p"), TestCase("--pidfile=/p"), TestCase("--pid-file /p")]
    public void A_pid_file_is_given_in_each_form(string option)
        => Assert.That(Parse(option + " memory").PidFile, Is.EqualTo("/p"));

    [TestCase("-t 4", 4), TestCase("-t1", 1), TestCase("--threads=0x10", 16), TestCase("--threads 0", 1)]
    public void The_number_of_threads_is_at_least_one(string option, int expected)
        => Assert.That(Parse(option + " memory").Threads, Is.EqualTo(expected));

    [TestCase("-v"), TestCase("--verbose"), TestCase("-fv"), TestCase("--verb")]
    public void Verbose_is_asked_for(string option) => Assert.That(Parse(option + " memory").Verbose, Is.True);

    [TestCase("--help", CommandMode.Help), TestCase("-V", CommandMode.Version)]
    [TestCase("--version", CommandMode.Version)]
    [TestCase("--dump-config", CommandMode.DumpConfig), TestCase("--dump-plugin memory", CommandMode.DumpPlugin)]
    [TestCase("memory --dump-plugin", CommandMode.DumpPlugin), TestCase("memory --help", CommandMode.Help)]
    [TestCase("--long-options", CommandMode.LongOptions), TestCase("--short-options", CommandMode.ShortOptions)]
    [TestCase("memory", CommandMode.Serve)]
    public void Questions_about_the_command_are_told_from_serving(string arguments, object mode)
        => Assert.That(Parse(arguments).Mode, Is.EqualTo(mode));

    [Test]
    public void Filters_keep_their_order()
        => Assert.That(Parse("--filter=cow memory --filter delay").Filters, Is.EqualTo(new[] { "cow", "delay" }));

    [Test]
    public void The_handshake_can_be_crippled()
    {
        CommandOptions options = Parse("--mask-handshake=0x1 --no-sr --no-mc --timeout=500ms memory");
        using (Assert.EnterMultipleScope())
        {
            Assert.That(options.HandshakeMask, Is.EqualTo(1));
            Assert.That(options.StructuredReplies, Is.False);
            Assert.That(options.MetaContexts, Is.False);
            Assert.That(options.HandshakeTimeout, Is.EqualTo(TimeSpan.FromMilliseconds(500)));
        }
    }

    [TestCase("--no-structured-replies"), TestCase("--no-sr")]
    public void Structured_replies_are_refused_under_both_names(string option)
        => Assert.That(Parse(option + " memory").StructuredReplies, Is.False);

    [TestCase("--no-meta-contexts"), TestCase("--no-mc")]
    public void Meta_contexts_are_refused_under_both_names(string option)
        => Assert.That(Parse(option + " memory").MetaContexts, Is.False);

    [Test]
    public void A_timeout_of_zero_is_no_limit()
        => Assert.That(Parse("--timeout 0 memory").HandshakeTimeout, Is.EqualTo(Timeout.InfiniteTimeSpan));

    [TestCase("--log=stderr", "stderr"), TestCase("--log default", "stderr"), TestCase("--log=null", "null")]
    [TestCase("--log=/l", "/l")]
    public void A_log_is_chosen(string option, string expected)
        => Assert.That(Parse(option + " memory").Log, Is.EqualTo(expected));

    [Test]
    public void Run_implies_a_private_Unix_socket()
        => Assert.That(
            CommandLine.Parse(["--run", "echo $uri", "memory"]).UnixSocket,
            Is.EqualTo(CommandOptions.PrivateUnixSocket));

    [TestCase("-p0"), TestCase("-i::1")]
    public void Run_leaves_another_transport_alone(string option)
        => Assert.That(Parse(option + " --run true memory").UnixSocket, Is.Null);

    [TestCase("-s"), TestCase("--single"), TestCase("--stdin")]
    public void One_connection_on_standard_input_is_asked_for(string option)
        => Assert.That(Parse(option + " memory").Single, Is.True);

    [Test]
    public void Remaining_options_are_taken()
    {
        CommandOptions options = Parse("--exit-with-parent --print-uri --name=x memory");
        using (Assert.EnterMultipleScope())
        {
            Assert.That(options.ExitWithParent, Is.True);
            Assert.That(options.PrintUri, Is.True);
            Assert.That(options.Name, Is.EqualTo("x"));
        }
    }

    [Test]
    public void Parameters_are_split_at_the_first_equals_sign_if_what_stands_before_is_a_key()
    {
        CommandOptions options = CommandLine.Parse(["data", "a.b-c_1=x=y", "1G", "=z", "1a=b", "a b=c", "k="]);
        Assert.That(options.Parameters, Is.EqualTo(new KeyValuePair<string, string>[]
        {
            new("a.b-c_1", "x=y"), new("", "1G"), new("", "=z"), new("", "1a=b"), new("", "a b=c"), new("k", ""),
        }));
    }

    [Test]
    public void Options_may_follow_the_plugin_and_end_at_two_dashes()
    {
        CommandOptions options = Parse("memory -r 1G -- -v --x=1 --");
        using (Assert.EnterMultipleScope())
        {
            Assert.That(options.ReadOnly, Is.True);
            Assert.That(options.Verbose, Is.False);
            Assert.That(options.Plugin, Is.EqualTo("memory"));
            Assert.That(
                options.Parameters.Select(p => p.Key + p.Value),
                Is.EqualTo(new[] { "1G", "-v", "--x=1", "--" }));
        }
    }

    [Test]
    public void A_single_dash_is_a_bare_argument()
        => Assert.That(Parse("file -").Parameters, Is.EqualTo(new KeyValuePair<string, string>[] { new("", "-") }));

    [TestCase("--nosuch memory", "--nosuch"), TestCase("-Z memory", "-Z"), TestCase("-fZ memory", "-Z")]
    [TestCase("--=1 memory", "--")]
    [TestCase("--p=1 memory", "--p is ambiguous"), TestCase("memory -p", "-p needs an argument: PORT")]
    [TestCase("memory --port", "--port needs an argument")]
    [TestCase("--verbose=1 memory", "--verbose takes no argument")]
    [TestCase("--port= memory", "--port needs an argument that is not empty")]
    [TestCase("-t x memory", "'x' is not a number")]
    [TestCase("-t -1 memory", "'-1' is not between 0"), TestCase("--timeout=soon memory", "'soon' is not a delay")]
    [TestCase("--mask-handshake=0x memory", "--mask-handshake"), TestCase("-v", "no plugin")]
    [TestCase("--dump-plugin", "no plugin")]
    public void A_wrong_option_is_named(string arguments, string expected)
        => Assert.That(Failure(arguments), Does.Contain(expected));

    [TestCase("-U /s -p 1 memory"), TestCase("-U /s -i ::1 memory"), TestCase("-s -U /s memory")]
    [TestCase("-s -p 1 memory")]
    [TestCase("--vsock -U /s memory"), TestCase("--vsock -i ::1 memory"), TestCase("-s --vsock memory")]
    [TestCase("-s --run true memory"), TestCase("-o --tls=require memory"), TestCase("-o --tls=on memory")]
    public void Contradictions_are_refused(string arguments)
        => Assert.That(Failure(arguments), Does.Contain("does not go together"));

    [TestCase("--selinux-label=x")]
    [TestCase("-u me"), TestCase("--user=me"), TestCase("-g us"), TestCase("--group us"), TestCase("--swap")]
    [TestCase("-D x=1")]
    [TestCase("--debug=x"), TestCase("--tls-psk=/f"), TestCase("--log=syslog")]
    public void Options_that_are_missing_say_so(string option)
        => Assert.That(Failure(option + " memory"), Does.Contain("not supported"));

    [TestCase("-o"), TestCase("--oldstyle"), TestCase("--old-style")]
    public void Oldstyle_is_asked_for(string option) => Assert.That(Parse(option + " memory").Oldstyle);

    [Test]
    public void Keepalive_is_asked_for() => Assert.That(Parse("--keepalive memory").KeepAlive);

    [TestCase("--tls=off", 0), TestCase("--tls off", 0), TestCase("--tls=on", 1), TestCase("--tls=require", 2)]
    public void Tls_is_told_in_a_word(string option, int expected)
        => Assert.That((int?)Parse(option + " memory").Tls, Is.EqualTo(expected));

    [Test]
    public void Tls_takes_three_words()
        => Assert.That(Failure("--tls=maybe memory"), Does.Contain("off, on or require"));

    [Test]
    public void Every_name_and_letter_stands_for_one_option()
    {
        Assert.That(OptionEntry.All.SelectMany(o => o.Names), Is.Unique);
        Assert.That(OptionEntry.All.Select(o => o.Letter).Where(c => c != '\0'), Is.Unique);
    }
}
