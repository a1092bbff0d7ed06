using NbdKit.Native;

namespace NbdKit.Tests.Native;

public sealed class FileErrorsTests
{
    [TestCase(Errno.NoSpace, NbdError.NoSpace)]
    [TestCase(Errno.QuotaExceeded, NbdError.NoSpace)]
    [TestCase(Errno.TooLarge, NbdError.NoSpace)]
    [TestCase(Errno.NotPermitted, NbdError.PermissionDenied)]
    [TestCase(Errno.AccessDenied, NbdError.PermissionDenied)]
    [TestCase(Errno.ReadOnlyFileSystem, NbdError.PermissionDenied)]
    [TestCase(Errno.OutOfMemory, NbdError.OutOfMemory)]
    [TestCase(Errno.NoEntry, NbdError.InvalidArgument)]
    [TestCase(Errno.IoError, NbdError.IoError)]
    [TestCase(9999, NbdError.IoError)]
    public void An_error_number_of_the_system_becomes_one_of_the_protocol(int error, NbdError expected)
    {
        NbdException failure = FileErrors.FromErrno(error, "trim");
        Assert.That(failure.Error, Is.EqualTo(expected));
        Assert.That(failure.Message, Does.StartWith("trim: "));
        if (OperatingSystem.IsLinux())
        {
            Assert.That(FileErrors.FromException(new IOException("/secret", error), "write").Error, Is.EqualTo(expected));
        }
    }

    [Test]
    public void An_exception_of_the_framework_becomes_an_error_of_the_protocol_that_names_no_path()
    {
        (Exception Cause, NbdError Expected)[] cases =
        [
            (new IOException("/secret", unchecked((int)0x80070070)), NbdError.NoSpace),
            (new IOException("/secret", unchecked((int)0x80070027)), NbdError.NoSpace),
            (new IOException("/secret", unchecked((int)0x80070079)), NbdError.IoError),
            (new UnauthorizedAccessException("/secret"), NbdError.PermissionDenied),
            (new ArgumentOutOfRangeException("value", "/secret"), NbdError.NoSpace),
            (new FileNotFoundException("/secret"), NbdError.InvalidArgument),
            (new DirectoryNotFoundException("/secret"), NbdError.InvalidArgument),
        ];
        foreach ((Exception cause, NbdError expected) in cases)
        {
            Assert.That(FileErrors.IsFileFailure(cause), Is.True);
            NbdException failure = FileErrors.FromException(cause, "write");
            Assert.That(failure.Error, Is.EqualTo(expected), cause.GetType().Name);
            Assert.That(failure.InnerException, Is.SameAs(cause));
            Assert.That(failure.Message, Does.StartWith("write").And.Not.Contain("secret"));
        }
        Assert.That(FileErrors.IsFileFailure(new InvalidOperationException()), Is.False);
    }
}
